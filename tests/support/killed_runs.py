"""What processes of tests do, and how they are killed.

They send themselves SIGKILL at a call that is counted.
"""

import io
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cpsam.config.run_options import RunOptions
from cpsam.errors import CpsamError
from cpsam.train import Recipe
from cpsam.train.run_folder import open_run
from cpsam.train.train import train
from support import tiny_runs
from support.processes import note
from support.tiny import FULL, tiny_dataset, tiny_residual

SAVES = {"checkpoint_steps": 3}  # of 8 steps


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # The signal may reach another thread first.


class Calls:
    """Counts the calls that change files, and kills the process at one of them.

    It dies before that call, or in the middle of it if it is a write.

    Args:
        fatal: Number of that call, from 1; None: none is fatal.
    """

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.names, self.lock = fatal, [], threading.Lock()
        for name in ("open", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir"):
            setattr(os, name, self.counted(name, getattr(os, name)))
        self.open = io.open
        io.open = self.open_file

    def count(self, name: str) -> bool:
        with self.lock:
            self.names.append(name)
            return len(self.names) == self.fatal

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            if self.count(name):
                kill()
            return call(*arguments, **options)

        return counting

    def open_file(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wa"):
            return self.open(path, mode, *arguments, **options)
        if self.count("open to write"):
            kill()
        return Written(self.open(path, mode, *arguments, **options), self)


class Written:
    """Is a file whose writes are counted."""

    def __init__(self, file: Any, calls: Calls) -> None:
        self.file, self.calls = file, calls

    def write(self, data: Any) -> int:
        if self.calls.count("write"):
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            kill()
        return self.file.write(data)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def run(
    folder: Path,
    optimizer: str,
    *,
    call: int | None = None,
    forward: int | None = None,
    log: Path | None = None,
    saves: Any = None,
    device: str = "cpu",
) -> None:
    """Makes a run of two epochs with everything that is random or has a state.

    Args:
        folder: The run folder.
        optimizer: The optimizer.
        call: The call that changes files at which the process is killed.
        forward: The training forward at which the process is killed.
        log: File for the names of the calls, without its suffix.
        saves: Options of the run.
        device: Where it trains.
    """
    model, forwards = tiny_residual(), []

    def count(module: torch.nn.Module, inputs: object) -> None:
        forwards.append(module.training)
        if sum(forwards) == forward:
            kill()

    if forward is not None:
        model.register_forward_pre_hook(count)
    calls = Calls(call) if call is not None or log is not None else None
    recipe = Recipe(**{**FULL, "epochs": 2, "optimizer": optimizer})
    train(
        model,
        tiny_dataset(),
        recipe,
        seed=4,
        folder=folder,
        config={},
        device=device,
        options=RunOptions(**(saves or SAVES)),
    )
    if log is not None and calls is not None:
        names = list(calls.names)
        note(log.parent, log.name, names)


def run_full(folder: Path, out: Path, limit: int) -> None:
    """Makes a run in which no file may grow beyond `limit` bytes once the first epoch is saved."""
    kept: list[int] = []
    latest = folder / "checkpoints" / "LATEST"

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "evaluation" and event["epoch"] == 2 and not kept:
            kept.append(1)
            while not latest.exists():  # A thread writes the first checkpoint.
                time.sleep(0.001)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    options: dict[str, Any] = {
        "seed": 4,
        "folder": folder,
        "config": {},
        "device": "cpu",
        "on_event": on_event,
    }
    try:
        train(tiny_residual(), tiny_dataset(), Recipe(**{**FULL, "epochs": 2}), **options)
    except CpsamError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        note(out, "error", str(error))
        raise


def run_and_wait(folder: Path, out: Path) -> None:
    """Makes a run that waits in its first step until there is a file `go`."""
    model = tiny_residual()

    def wait(module: torch.nn.Module, inputs: object) -> None:
        note(out, "running", os.getpid())
        while not (out / "go").exists():
            threading.Event().wait(0.01)

    model.register_forward_pre_hook(wait)
    train(
        model,
        tiny_dataset(),
        Recipe(**{**FULL, "epochs": 2}),
        seed=4,
        folder=folder,
        config={},
        device="cpu",
        options=RunOptions(**SAVES),
    )


def run_signalled(folder: Path, out: Path, kind: str, epoch: int, signal_number: int) -> None:
    """Runs, and sends itself a signal at the first event of a kind in an epoch."""

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == kind and event["epoch"] == epoch:
            os.kill(os.getpid(), signal_number)

    try:
        tiny_runs.run(folder, on_event=on_event)
    except CpsamError as error:
        note(out, "error", str(error))
        raise


def hold_folder(folder: Path, out: Path) -> None:
    """Opens a run folder that has no configuration yet, and keeps its lock until it is killed."""
    with open_run(folder, {"a": 1}):
        (folder / "config.json").unlink()
        note(out, "held", os.getpid())
        threading.Event().wait()


def note_modules(out: Path) -> None:
    note(out, "modules", sorted(sys.modules))


def run_noting(folder: Path, out: Path) -> None:
    try:
        run(folder, "sgd")
    except CpsamError as error:
        note(out, "error", str(error))
        raise


def save_three_times(folder: Path) -> None:
    """Saves three checkpoints, for a trace of the system calls."""
    from support.checkpoints import save_checkpoint

    for step in (3, 7, 9):
        save_checkpoint(folder, step, tiny_residual().state_dict(), {"step": step}, keep=2)
