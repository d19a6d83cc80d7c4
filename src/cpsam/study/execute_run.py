"""Brings one run of a study to its end: done, diverged or failed.

The folder alone says which, so any process may ask, and any process may die.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpsam.errors import CpsamError, DataError, DivergedError
from cpsam.files import read_file, write_json
from cpsam.run.events import Event, OnEvent
from cpsam.run.records import DIVERGED, FAILED, StoredRun, read_run
from cpsam.run.spec import RunSpec
from cpsam.study.claim import claim
from cpsam.study.records import Deaths
from cpsam.train.run_folder import CHECKPOINTS
from cpsam.typed import read_record

CLAIM, DEATHS = ".claim", ".attempts"
MAX_DEATHS = 3  # of the process of a run, in a row, at the same checkpoint
LATEST_BYTES = 4096

Train = Callable[[RunSpec, Path, OnEvent], object]
"""Trains a run in its folder, and leaves a summary there."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        spec: What the run is.
        folder: Where it is kept.
        index: Its position in the study, from 0.
        runs: How many runs the study has.
        label: What events call its arm. Default: the name of the arm.
        stored: The run with its end, if it had ended when the study began.
    """

    spec: RunSpec
    folder: Path
    index: int
    runs: int
    label: str = ""
    stored: StoredRun | None = None

    @property
    def header(self) -> dict[str, Any]:
        """What each of its events carries."""
        return {
            "run": self.folder.name,
            "index": self.index,
            "runs": self.runs,
            "arm": self.label or self.spec.arm.name,
            "seed": self.spec.seed,
        }

    def read(self) -> StoredRun:
        """Reads its folder, unless the run had ended when the study began."""
        return self.stored or read_run(self.folder)


def execute_run(run: PlannedRun, train: Train, on_event: OnEvent) -> StoredRun | None:
    """Brings a run to its end and records it; reads a run that has ended.

    Args:
        run: The run.
        train: Trains it. An error that it raises ends the run as diverged or failed, and the study
            goes on. A :class:`CpsamError` or an OSError that a person can mend stops the study.
        on_event: Told of "run", then of what `train` tells, then of "finished", "diverged" or
            "failed", or "kept" where the run had diverged or failed before. Each event carries
            `run.header`.

    Returns:
        The run with its end; None if another process works on it.

    Raises:
        StoppedError: If it was interrupted.
        DataError: If images cannot be read, or are not those of the plan.
        UserError: If the folder holds something else, or a run that was begun on another kind of
            device.
        OSError: If the folder cannot be written.
    """

    def emit(event: Event) -> None:
        on_event({**run.header, **event})

    stored = run.read()
    if stored.outcome is not None:
        return report_end(replace(run, stored=stored), on_event)
    with claim(run.folder / CLAIM) as is_ours:
        if not is_ours:
            return None
        stored = run.read()  # once more: it may have ended before the claim
        was_ended = stored.outcome is not None
        emit({"event": "run"})
        if not was_ended:
            stored = train_run(run, train, emit)
    return emit_outcome(stored, was_ended, emit)


def report_end(run: PlannedRun, on_event: OnEvent) -> StoredRun:
    """Tells of a run that had ended before, and returns it."""

    def emit(event: Event) -> None:
        on_event({**run.header, **event})

    emit({"event": "run"})
    return emit_outcome(run.read(), True, emit)


def train_run(run: PlannedRun, train: Train, emit: OnEvent) -> StoredRun:
    """Trains a run that this process has claimed, and returns it with its end."""
    deaths = record_attempt(run.folder)
    try:
        if deaths >= MAX_DEATHS:
            return record_failure(
                run.folder,
                "failed",
                "the process of the run ended without an error message (killed, out of memory, or"
                f" crashed) {deaths} times in a row; retry_failed tries it again",
            )
        train(run.spec, run.folder, emit)
        stored = read_run(run.folder)
        if stored.outcome is None:
            return record_failure(
                run.folder, "failed", "the run returned, but did not write a summary"
            )
        return stored
    except DivergedError as error:
        return record_failure(run.folder, "diverged", str(error))
    # Problems of the data, a disk or a machine would end all other runs too, and none of them
    # could be tried again.
    except (CpsamError, OSError):
        raise
    except Exception as error:
        return record_failure(
            run.folder, "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
        )
    finally:  # A process that gets here has not died.
        (run.folder / DEATHS).unlink(missing_ok=True)


def record_attempt(folder: Path) -> int:
    """Records an attempt before the training, and returns how often in a row a process has died.

    A process that ends in order removes the record. Only deaths since the last new checkpoint
    count. Without the count, a run that kills its process would be started again for ever.
    """
    try:
        reached = read_file(folder / CHECKPOINTS / "LATEST", LATEST_BYTES).decode(errors="replace")
    except (OSError, DataError):
        reached = ""
    try:
        found = read_record(Deaths, folder / DEATHS)
    except DataError:
        found = None
    before = None if found is None else found[0]
    deaths = 0 if before is None else 1 + (before.deaths if before.checkpoint == reached else 0)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DEATHS, {"deaths": deaths, "checkpoint": reached})
    return deaths


def record_failure(folder: Path, status: str, error: str, trace: str | None = None) -> StoredRun:
    """Writes how a run ended that has no summary, and returns the run."""
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"run": folder.name, "error": error}
    if trace:
        record["traceback"] = trace.splitlines()
    write_json(folder / {"diverged": DIVERGED, "failed": FAILED}[status], record)
    return read_run(folder)


def forget_failure(folder: Path) -> None:
    """Lets a run that failed be tried once more."""
    for name in (FAILED, DEATHS):
        (folder / name).unlink(missing_ok=True)


def emit_outcome(stored: StoredRun, was_ended: bool, emit: OnEvent) -> StoredRun:
    """Tells how a run ended, and returns the run."""
    end = stored.outcome
    assert end is not None
    if stored.done:
        emit(
            {"event": "finished", "top1": end.top1, "read": was_ended, "seconds": end.train_seconds}
        )
    else:
        kind = "kept" if was_ended else end.status
        emit({"event": kind, "status": end.status, "error": end.error})
    return stored
