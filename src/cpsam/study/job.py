"""A run of a study and its one end: done, diverged or failed. The folder alone says which, so that any process may ask, and any may die."""

import fcntl
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsam.checkpoint import write_atomically
from cpsam.errors import DataError, DivergedError, UserError
from cpsam.study.run import OnEvent, RunSpec
from cpsam.train.run_folder import SUMMARY, read_json

DIVERGED, FAILED, CLAIM = "diverged.json", "failed.json", ".claim"

Execute = Callable[[RunSpec, Path, OnEvent], dict[str, Any]]
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run that is to be brought to an end.

    Attributes:
        spec: What to run.
        folder: Where.
        index: Its place in the study, from 0.
        runs: How many there are.
        label: What events call its arm, where another setting has one of the same name. Default: the name of the arm.
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


def outcome(folder: Path) -> Outcome | None:
    """How the run in this folder ended, None if it has not.

    Raises:
        DataError: If a file of it is damaged.
    """
    try:
        if (summary := read_json(folder / SUMMARY)) is not None:
            numbers = [summary.get(key) for key in ("top1", "top5", "loss")] + [(summary.get("timing") or {}).get("train_seconds")]
            if not all(isinstance(number, int | float) for number in numbers):
                raise DataError(f"{folder / SUMMARY}: not the summary of a run")
            return {"status": "done", "error": None, **summary}
        for status, name in (("diverged", DIVERGED), ("failed", FAILED)):
            if (record := read_json(folder / name)) is not None:
                if not isinstance(record.get("error"), str):
                    raise DataError(f"{folder / name}: does not say why the run {status}")
                return {"status": status, "error": record["error"]}
        return None
    except DataError as error:
        raise DataError(f"{error}; without its folder the run is made again") from error


def attempt(job: Job, execute: Execute, on_event: OnEvent) -> bool:
    """Bring a run to its end, and record it; a run that has one is read, and one that another process is at is left to it.

    Args:
        job: The run.
        execute: Trains it. What it raises is the end of the run, as diverged or failed, and the study goes on; but not an error that a
            person can mend.
        on_event: Told of "run", then of what `execute` tells, then of "finished", "diverged" or "failed", or "kept" where
            it had diverged or failed before; each with `job.header`.

    Returns:
        Whether the run has an end now.

    Raises:
        StoppedError: If it was interrupted.
        DataError: If images cannot be read, or are not those of the plan.
        UserError: If the folder holds something else, or a run that was begun on another kind of device.
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
    try:
        return {"status": "done", "error": None, **execute(job.spec, job.folder, tell)}
    except DivergedError as error:
        return record_end(job.folder, "diverged", str(error))
    except (UserError, OSError):  # of data, a disk or a machine: all other runs would meet it too, and none of them could be tried again
        raise
    except Exception as error:
        return record_end(job.folder, "failed", f"{type(error).__name__}: {error}", traceback.format_exc())


def record_end(folder: Path, status: str, error: str, trace: str | None = None) -> Outcome:
    """Write how a run ended that has no summary."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"error": error, **({"traceback": trace.splitlines()} if trace else {})}
    write_atomically(folder / {"diverged": DIVERGED, "failed": FAILED}[status], (json.dumps(record, indent=1) + "\n").encode())
    return {"status": status, "error": error}


def tell_end(found: Outcome, read: bool, tell: OnEvent) -> None:
    if found["status"] == "done":
        tell({"event": "finished", "top1": found["top1"], "read": read, "seconds": found["timing"]["train_seconds"]})
    else:
        tell({"event": "kept" if read else found["status"], "status": found["status"], "error": found["error"]})


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone holds a lock file. The system takes it back when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
