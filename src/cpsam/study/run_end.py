"""A run of a study and its one end: done, diverged or failed. The folder alone says which, so that
any process may ask, and any may die.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsam.errors import CpsamError, DataError, DivergedError
from cpsam.files import open_lock, read_file, read_json, try_lock, write_json
from cpsam.run.events import OnEvent
from cpsam.run.spec import RunSpec, is_named_by
from cpsam.study.records import Attempt, Ended
from cpsam.train.run_folder import CHECKPOINTS, CONFIG, SUMMARY, read_summary
from cpsam.typed import read_record

DIVERGED, FAILED, CLAIM, ATTEMPTS = "diverged.json", "failed.json", ".claim", ".attempts"
MOST_DEATHS = 3  # of the process of a run, one after the other at the same checkpoint
LATEST_BYTES = 4096

Execute = Callable[[RunSpec, Path, OnEvent], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: "done", "diverged" or "failed".
        error: Why it is not done.
        top1: Of the last epoch, and so on; None unless the run is done.
    """

    status: str
    error: str | None = None
    top1: float | None = None
    top5: float | None = None
    loss: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class Job:
    """A run that is to be brought to an end.

    Attributes:
        spec: What to run.
        folder: Where.
        index: Its place in the study, from 0.
        runs: How many there are.
        label: What events call its arm, where another setting has one of the same name. Default:
            the name of the arm.
    """

    spec: RunSpec
    folder: Path
    index: int
    runs: int
    label: str = ""

    @property
    def header(self) -> dict[str, Any]:
        """What its events carry."""
        return {
            "run": self.folder.name,
            "index": self.index,
            "runs": self.runs,
            "arm": self.label or self.spec.arm.name,
            "seed": self.spec.seed,
        }


def read_config(folder: Path) -> dict[str, Any] | None:
    """Returns the configuration of the run in this folder, None if it was not begun.

    Raises:
        DataError: If the file is damaged, or is that of another run: the folder of a run is named
            by its configuration.
    """
    config = read_json(folder / CONFIG)
    if config is not None and not is_named_by(folder.name, config):
        raise DataError(
            f"{folder / CONFIG}: it is of another run: its content does not give the name of the"
            " folder"
        )
    return config


def outcome(folder: Path) -> Outcome | None:
    """Returns how the run in this folder ended, None if it has not.

    Raises:
        DataError: If a file of it is damaged or of another run.
    """
    try:
        config = read_config(folder)
        if config is None and (folder / SUMMARY).exists():
            raise DataError(
                f"{folder / SUMMARY}: {CONFIG} is missing beside it, so it may be of any run"
            )
        if config is not None and (summary := read_summary(folder, config)) is not None:
            top1, top5, loss = (summary[key] for key in ("top1", "top5", "loss"))
            return Outcome("done", None, top1, top5, loss, summary["timing"]["train_seconds"])
        for status, name in (("diverged", DIVERGED), ("failed", FAILED)):
            if (found := read_record(Ended, folder / name)) is not None:
                if found[0].run not in (None, folder.name):
                    raise DataError(f"{folder / name}: it is of another run, {found[0].run}")
                return Outcome(status, found[0].error)
        return None
    except DataError as error:
        raise DataError(f"{error}; remove the folder, and the run is made again") from error


def attempt(job: Job, execute: Execute, on_event: OnEvent) -> bool:
    """Bring a run to its end, and record it; a run that has one is read, and one that another
    process is at is left to it.

    Args:
        job: The run.
        execute: Trains it. What it raises is the end of the run, as diverged or failed, and the
            study goes on; but not an error that a person can mend.
        on_event: Told of "run", then of what `execute` tells, then of "finished", "diverged" or
            "failed", or "kept" where it had diverged or failed before; each with `job.header`.

    Returns:
        Whether the run has an end now.

    Raises:
        StoppedError: If it was interrupted.
        DataError: If images cannot be read, or are not those of the plan.
        UserError: If the folder holds something else, or a run that was begun on another kind of
            device.
        OSError: If the folder cannot be written.
    """

    def tell(event: dict[str, Any]) -> None:
        on_event({**job.header, **event})

    found = outcome(job.folder)
    if found is not None:
        tell({"event": "run"})
        tell_end(found, True, tell)
        return True
    with claimed(job.folder / CLAIM) as ours:
        if not ours:
            return False
        found = outcome(job.folder)  # once more: it may have ended between the look and the claim
        read = found is not None
        tell({"event": "run"})
        if found is None:
            found = carry_out(job, execute, tell)
    tell_end(found, read, tell)
    return True


def carry_out(job: Job, execute: Execute, tell: OnEvent) -> Outcome:
    deaths = count_attempt(job.folder)
    try:
        if deaths >= MOST_DEATHS:
            how = "ended without a word, killed, out of memory or by a crash"
            return record_end(
                job.folder,
                "failed",
                f"the process of the run {how}, {deaths} times in a row; retry_failed tries it"
                " again",
            )
        execute(job.spec, job.folder, tell)
        found = outcome(job.folder)
        return found or record_end(job.folder, "failed", "the run returned and left no summary")
    except DivergedError as error:
        return record_end(job.folder, "diverged", str(error))
    # of data, a disk or a machine: all other runs would meet it too, and none of them could be
    # tried again
    except (CpsamError, OSError):
        raise
    except Exception as error:
        return record_end(
            job.folder, "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
        )
    finally:  # whatever gets here is no death
        (job.folder / ATTEMPTS).unlink(missing_ok=True)


def count_attempt(folder: Path) -> int:
    """Writes down that a process begins with a run, and returns how often one has died at it since
    the last new checkpoint.

    A run that kills its process would else be begun anew for ever, and one that gets ahead between
    two kills is no such run.
    """
    try:
        reached = read_file(folder / CHECKPOINTS / "LATEST", LATEST_BYTES).decode(errors="replace")
    except (OSError, DataError):
        reached = ""
    try:
        found = read_record(Attempt, folder / ATTEMPTS)
    except DataError:
        found = None
    before = None if found is None else found[0]
    deaths = 0 if before is None else 1 + (before.deaths if before.checkpoint == reached else 0)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ATTEMPTS, {"deaths": deaths, "checkpoint": reached})
    return deaths


def record_end(folder: Path, status: str, error: str, trace: str | None = None) -> Outcome:
    """Writes how a run ended that has no summary."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "run": folder.name,
        "error": error,
        **({"traceback": trace.splitlines()} if trace else {}),
    }
    write_json(folder / {"diverged": DIVERGED, "failed": FAILED}[status], record)
    return Outcome(status, error)


def forget_failure(folder: Path) -> None:
    """Lets a run that failed be tried once more."""
    for name in (FAILED, ATTEMPTS):
        (folder / name).unlink(missing_ok=True)


def tell_end(found: Outcome, read: bool, tell: OnEvent) -> None:
    if found.status == "done":
        tell(
            {"event": "finished", "top1": found.top1, "read": read, "seconds": found.train_seconds}
        )
    else:
        tell(
            {
                "event": "kept" if read else found.status,
                "status": found.status,
                "error": found.error,
            }
        )


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone holds a lock file. The system takes it back when the process ends,
    however it ends.

    Raises:
        UserError: If the file system has no locks.
        DataError: If something else than a file has this name.
        OSError: If it cannot be opened, or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(path) as lock:
        yield try_lock(lock)
