"""Brings the runs of a study to their ends in this process, one after the other.

:mod:`cpsam.study.process_executor` and :mod:`cpsam.study.ray_executor` execute several at once.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from cpsam.run.events import OnEvent
from cpsam.run.records import StoredRun
from cpsam.study.execute_run import PlannedRun, Train, execute_run

POLL_SECONDS = 1.0


class Executor(Protocol):
    """Brings runs to their ends."""

    @property
    def at_once(self) -> int | None:
        """How many runs are executed at once; None if a cluster decides."""
        ...

    def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
        """Returns every run with its end, by the name of its folder.

        This process may be killed at any time, and another may work on the same study.

        Raises:
            StoppedError: If it was interrupted; the same call continues.
        """
        ...


class InProcess:
    """Executes one run after the other. Two processes at one study take different runs.

    Args:
        train: Trains a run.
        poll_seconds: How long to wait for another process before looking again.
    """

    at_once = 1

    def __init__(self, train: Train, poll_seconds: float = POLL_SECONDS) -> None:
        self.train, self.poll_seconds = train, poll_seconds

    def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
        ended: dict[str, StoredRun] = {}
        waiting = list(runs)
        while waiting:
            left = []
            for run in waiting:
                stored = execute_run(run, self.train, on_event)
                if stored is None:
                    left.append(run)
                else:
                    ended[run.folder.name] = stored
            # If another process that works on all of them dies, they are free.
            if len(left) == len(waiting):
                on_event({"event": "waiting", "runs": len(left)})
                time.sleep(self.poll_seconds)
            waiting = left
        return ended
