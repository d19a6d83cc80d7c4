"""Executes several runs at once on this machine, each in a process of its own.

The processes are new interpreters. A fork would copy the locks of torch's threads and a GPU that it
cannot use. The processes of `multiprocessing` would run the script of a person again, unless all of
it stands below ``if __name__ == "__main__"``.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from tempfile import TemporaryFile
from typing import IO

from cpsam.data.loader.workers import signals_blocked
from cpsam.errors import UserError
from cpsam.run.events import OnEvent
from cpsam.run.records import StoredRun
from cpsam.study.dispatch import GRACE_SECONDS, Dispatch, Ended, WorkerDied, worker_environment
from cpsam.study.execute_run import PlannedRun, Train
from cpsam.study.executor import InProcess
from cpsam.study.shared_pickle import write_shared

START = (
    "import sys; sys.path[:] = sys.argv[3:]; from cpsam.study.run_process import serve;"
    " serve(*map(int, sys.argv[1:3]))"
)


class CannotTravel(Exception):
    """Says why other processes cannot have the objects of a study."""


class ProcessExecutor:
    """Executes runs in processes of this machine.

    Args:
        at_once: How many runs to execute at once.
        train: Trains a run. It is sent to the processes, as are the runs.
        here: Trains a run in this process, if `train` or the runs cannot be sent.
    """

    def __init__(self, at_once: int, train: Train, here: Train) -> None:
        self.at_once, self.train, self.here = at_once, train, here

    def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
        ended: dict[str, StoredRun] = {}
        try:
            with TemporaryFile() as setup:
                write_setup(self.train, runs, setup)
                threads = max(run.spec.threads for run in runs)
                pool = ProcessPool(self.at_once, setup.fileno(), threads, on_event)
                dispatch = Dispatch(pool, on_event)
                ended = dispatch.ended
                return dispatch.run_all(runs)
        except CannotTravel as error:
            self.at_once = 1
            text = f"one run at a time, because other processes cannot have its objects: {error}"
            on_event({"event": "note", "text": text})
        left = [run for run in runs if run.folder.name not in ended]
        return {**ended, **InProcess(self.here).run(left, on_event)}


def write_setup(train: Train, runs: Sequence[PlannedRun], file: IO[bytes]) -> None:
    """Writes what a process reads first.

    Raises:
        CannotTravel: If `train` or the runs cannot be pickled.
    """
    try:
        write_shared((train, {run.folder.name: run for run in runs}), file)
    except Exception as error:  # Anything that an object raises when it is pickled.
        raise CannotTravel(f"{type(error).__name__}: {error}") from error


class RunProcess:
    """Talks to one process.

    Args:
        setup: The descriptor of the file that it reads first.
        environment: What it has set before it loads torch.
    """

    def __init__(self, setup: int, environment: Mapping[str, str]) -> None:
        self.connection, theirs = Pipe()
        ends = (theirs.fileno(), setup)
        with signals_blocked():
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *map(str, ends), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=ends,
                env={**os.environ, **environment},
            )
        theirs.close()  # Nobody else holds it, so the connection ends with the process.
        self.run: PlannedRun | None = None
        self.is_ready = False

    def begin(self, run: PlannedRun) -> None:
        self.run = run
        with suppress(OSError):  # If it has died, the next wait finds out.
            self.connection.send(run.folder.name)

    def how_it_ended(self) -> str:
        code = self.process.wait()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}, perhaps for want of memory"
        return f"ended with exit code {code}"


class ProcessPool:
    """Executes runs in processes that are started when they are needed.

    Args:
        count: How many there are at most.
        setup: The descriptor of the file that they read first.
        threads: Of a run.
        on_event: Told what the processes tell.
    """

    def __init__(self, count: int, setup: int, threads: int, on_event: OnEvent) -> None:
        self.count, self.setup, self.on_event = count, setup, on_event
        # Loading processes divide the processors among the runs.
        self.environment = {**worker_environment(threads), "LOCAL_WORLD_SIZE": str(count)}
        self.processes: list[RunProcess] = []

    @property
    def has_room(self) -> bool:
        return sum(process.run is not None for process in self.processes) < self.count

    def start(self, run: PlannedRun) -> None:
        process = next((each for each in self.processes if each.run is None), None)
        if process is None:
            process = RunProcess(self.setup, self.environment)
            self.processes.append(process)
        process.begin(run)

    def wait(self, seconds: float) -> list[Ended]:
        end, ended = time.monotonic() + seconds, list[Ended]()
        while not ended and (left := end - time.monotonic()) > 0:
            ready = wait([process.connection for process in self.processes], left)
            for process in [each for each in self.processes if each.connection in ready]:
                ended += self.receive(process)
        return ended

    def receive(self, process: RunProcess) -> list[Ended]:
        """Takes what a process says, or that it has died; returns its run if that ended."""
        try:
            kind, content = process.connection.recv()
        except (EOFError, OSError):
            return self.died(process)
        if kind == "event":
            self.on_event(content)
        elif kind == "unread":
            raise CannotTravel(content)
        elif kind == "ready":
            process.is_ready = True
        else:
            run, process.run = process.run, None
            assert run is not None
            return [(run, content)]
        return []

    def died(self, process: RunProcess) -> list[Ended]:
        self.processes.remove(process)
        process.connection.close()
        how = process.how_it_ended()
        if not process.is_ready:
            raise UserError(
                f"a process for runs {how}, before its first run; fewer `runs_at_once` need less"
                " memory"
            )
        return [] if process.run is None else [(process.run, WorkerDied(f"its process {how}"))]

    def stop(self) -> None:
        for process in self.processes:
            process.connection.close()
        end = time.monotonic() + GRACE_SECONDS
        try:
            for process in self.processes:
                process.process.wait(max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:  # A second Ctrl-C acts at once.
            for process in self.processes:
                process.process.kill()
                process.process.wait()
            self.processes = []
