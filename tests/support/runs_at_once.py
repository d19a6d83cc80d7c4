"""Studies whose runs are executed at once, and processes for them that start in milliseconds."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.errors import DataError, DivergedError, StoppedError
from cpsam.run.arm import Arm
from cpsam.run.events import OnEvent
from cpsam.run.spec import RunSpec
from cpsam.study.execute_run import PlannedRun
from cpsam.study.process_executor import ProcessExecutor
from cpsam.study.run_process import serve
from cpsam.train.stop import StopRequest
from support.finished_runs import finish
from support.processes import context, preload


class ForkedProcess:
    """Stands for `subprocess.Popen`: a server that has imported everything forks the process."""

    def __init__(self, words: Sequence[str], pass_fds: Sequence[int], **_: Any) -> None:
        start_unblocked()
        ends = [Connection(os.dup(each)) for each in pass_fds]  # It closes what it holds.
        self.process = context.Process(target=serve_forked, args=ends)
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        assert self.process.exitcode is not None
        return self.process.exitcode


def start_unblocked() -> None:
    """Starts the server with no signal blocked: later tests send signals to what it forks."""
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])
    preload()
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def serve_forked(pipe: Connection, setup: Connection) -> None:
    serve(os.dup(pipe.fileno()), os.dup(setup.fileno()))
    os._exit(0)


def planned(folder: Path, count: int) -> list[PlannedRun]:
    folder.mkdir(exist_ok=True)
    specs = [
        RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), seed, Recipe(), 1)
        for seed in range(count)
    ]
    return [
        PlannedRun(spec, folder / spec.folder_name, seed, count) for seed, spec in enumerate(specs)
    ]


class Acting:
    """Trains a run by an act that its seed names: "done" unless it is said otherwise."""

    def __init__(self, acts: Mapping[int, str]) -> None:
        self.acts = acts

    def __call__(self, spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        act = self.acts.get(spec.seed, "done")
        if act == "is long":
            self.stop_after_a_step(folder, on_event)
        on_event({"event": "begun", "pid": os.getpid()})
        if act == "dies" or (act == "dies once" and not (folder / "died").exists()):
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "diverges":
            raise DivergedError("the loss is nan")
        if act == "bad image":
            raise DataError("a/7.png: cannot be read")
        if act == "full disk":
            raise OSError(28, "No space left on device")
        return finish(spec, folder, pid=os.getpid())

    def stop_after_a_step(self, folder: Path, on_event: OnEvent) -> None:
        with StopRequest() as stop:
            on_event({"event": "begun", "pid": os.getpid()})
            while not stop.requested:
                time.sleep(0.01)
            (folder / "saved").touch()
            stop.signalled = False
        raise StoppedError("stopped after a step")


def study_that_is_killed(folder: Path, count: int) -> None:
    """Executes runs that never end, and notes the processes that work on them."""

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "begun":
            (folder / f"{event['pid']}.pid").touch()

    long = Acting(dict.fromkeys(range(count), "is long"))
    ProcessExecutor(count, long, long).run(planned(folder, count), note)
