"""Hands the runs of a study to workers, several at once, and collects how the runs end."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from cpsam.errors import StoppedError
from cpsam.run.events import OnEvent
from cpsam.run.records import StoredRun
from cpsam.study.execute_run import PlannedRun, record_failure, report_end
from cpsam.study.executor import POLL_SECONDS

GRACE_SECONDS = 60  # for runs to write a checkpoint when they are told to stop
SPIN_COUNT = "1000"

Ended = tuple[PlannedRun, StoredRun | Exception | None]
"""A run with its end. None: another process works on it. An error: the run has not ended."""


class WorkerDied(Exception):
    """Says how a worker ended before its run did."""


class Workers(Protocol):
    """Processes that bring runs to their ends by :func:`cpsam.study.execute_run.execute_run`."""

    @property
    def has_room(self) -> bool:
        """Whether a run can be started now."""
        ...

    def start(self, run: PlannedRun) -> None:
        """Gives a run to a worker."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """Passes on events until a run ends, for so many seconds at most; returns what ended."""
        ...

    def stop(self) -> None:
        """Ends the workers. Runs that are under way save a checkpoint first."""
        ...


class Dispatch:
    """Carries out one call of :meth:`cpsam.study.executor.Executor.run`.

    Args:
        workers: Execute the runs.
        on_event: Told of runs that had ended before, of deaths and of waiting.
        retries: How often a run is tried again after its worker died. Then it counts as failed.
        poll_seconds: How long to wait for another process before looking again.
    """

    def __init__(
        self,
        workers: Workers,
        on_event: OnEvent,
        retries: float = math.inf,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.workers, self.on_event = workers, on_event
        self.retries, self.poll_seconds = retries, poll_seconds
        self.waiting: deque[PlannedRun] = deque()
        self.held: list[PlannedRun] = []  # the processes of another command work on them
        self.under_way = 0
        self.deaths: dict[str, int] = {}
        self.ended: dict[str, StoredRun] = {}

    def run_all(self, runs: Sequence[PlannedRun]) -> Mapping[str, StoredRun]:
        """Returns every run with its end, by the name of its folder."""
        try:
            for run in runs:
                stored = run.read()
                if stored.outcome is None:
                    self.waiting.append(run)
                else:
                    self.keep_ended(replace(run, stored=stored))
            while self.waiting or self.under_way or self.held:
                self.step()
        except KeyboardInterrupt:
            raise StoppedError(
                "stopped; each run that was under way has saved its step, and the same command"
                " continues"
            ) from None
        finally:
            self.workers.stop()
        return self.ended

    def keep_ended(self, run: PlannedRun) -> None:
        """Keeps a run that has ended without a worker."""
        self.ended[run.folder.name] = report_end(run, self.on_event)

    def step(self) -> None:
        """Starts runs where there is room, and waits for the end of one."""
        while self.waiting and self.workers.has_room:
            self.workers.start(self.waiting.popleft())
            self.under_way += 1
        if self.under_way:
            ended = self.workers.wait(self.poll_seconds)
        else:
            ended = []
            self.on_event({"event": "waiting", "runs": len(self.held)})
            time.sleep(self.poll_seconds)
        for run, end in ended:
            self.under_way -= 1
            self.take(run, end)
        if not ended:
            self.waiting += self.held
            self.held = []

    def take(self, run: PlannedRun, end: StoredRun | Exception | None) -> None:
        if isinstance(end, WorkerDied | StoppedError):
            self.died(run, str(end))
        elif isinstance(end, Exception):
            raise end
        elif end is None:
            self.held.append(run)
        else:
            self.ended[run.folder.name] = end

    def died(self, run: PlannedRun, why: str) -> None:
        """Lets a run go on whose worker died. After a number of deaths the run has failed."""
        self.deaths[run.folder.name] = deaths = self.deaths.get(run.folder.name, 0) + 1
        self.on_event({**run.header, "event": "died", "error": why, "deaths": deaths})
        if deaths <= self.retries:
            self.waiting.appendleft(run)
            return
        why = f"its worker died {deaths} times ({why})"
        self.keep_ended(replace(run, stored=record_failure(run.folder, "failed", why)))


def worker_environment(threads: int) -> dict[str, str]:
    """Returns what a worker must have set before it loads torch.

    By default, threads of libgomp wait for each other in a long loop. If there are more threads
    than cores, they take the processor from the threads that they wait for. Two processes of two
    threads on two cores made 0.45 steps per second each, and 7.6 with short loops. With one thread
    each they made 12.6 (ResNet-20 with CPSAM, 32 digits per step). So every run has its own number
    of threads, and its loops are short.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": SPIN_COUNT,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
