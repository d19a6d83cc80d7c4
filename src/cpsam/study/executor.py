"""Who brings the runs of a study to their ends: here, one after the other in this process; in
`ray_executor`, several at once.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import torch

from cpsam.run.events import OnEvent
from cpsam.study.run_end import Execute, Job, attempt

POLL_SECONDS = 1.0


class Executor(Protocol):
    def run(self, jobs: Sequence[Job], on_event: OnEvent) -> None:
        """Return when every job has an end: this process may be killed at any time, and another one
        may be at the same study.

        Raises:
            StoppedError: If it was interrupted; the same call continues.
        """
        ...


class InProcess:
    """One run after the other. Of two processes at one study, each takes the runs that the other is
    not at.

    Args:
        execute: Trains a run.
        poll_seconds: How long to wait for another process before looking again.
    """

    def __init__(self, execute: Execute, poll_seconds: float = POLL_SECONDS) -> None:
        self.execute, self.poll_seconds = execute, poll_seconds

    def run(self, jobs: Sequence[Job], on_event: OnEvent) -> None:
        threads = torch.get_num_threads()
        waiting = list(jobs)
        try:
            while waiting:
                held = [job for job in waiting if not attempt(job, self.execute, on_event)]
                # another process is at all of them; if it dies, they are free
                if len(held) == len(waiting):
                    on_event({"event": "waiting", "runs": len(held)})
                    time.sleep(self.poll_seconds)
                waiting = held
        finally:
            torch.set_num_threads(threads)
