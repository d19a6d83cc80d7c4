"""A process that executes runs for a study, one after the other, until the study closes its pipe.

The study may be killed at any time. Then the pipe closes too, and the run stops after its step.
"""

import os
import signal
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from cpsam.errors import STOP_SIGNALS, CpsamError, DataError
from cpsam.run.data import LoadedTask
from cpsam.run.events import Event, OnEvent, silent
from cpsam.run.spec import RunSpec
from cpsam.run.train_run import train_run
from cpsam.study.dispatch import GRACE_SECONDS
from cpsam.study.execute_run import PlannedRun, Train, execute_run
from cpsam.study.make_plan import Load
from cpsam.study.shared_pickle import read_shared


class LoadAndTrain:
    """Trains runs on data that this process loads, once per task.

    Args:
        load: Loads a task.
    """

    def __init__(self, load: Load) -> None:
        self.load, self.loaded = load, {}

    def __call__(self, spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        if spec.task not in self.loaded:
            self.loaded[spec.task] = self.load(spec.task, silent)
        return train_checked(spec, self.loaded[spec.task], folder, on_event)


def train_checked(
    spec: RunSpec, loaded: LoadedTask, folder: Path, on_event: OnEvent
) -> dict[str, Any]:
    """Trains a run on data that another process than the one of the plan has loaded.

    Raises:
        DataError: If they are not the data of the plan.
    """
    if loaded.dataset.fingerprint != spec.data_fingerprint:
        raise DataError(
            f"the data on {os.uname().nodename} is not that of the plan: its fingerprint differs"
        )
    return train_run(spec, loaded, folder, on_event)


def serve(pipe: int, setup: int) -> None:
    """Executes the runs that the study names; this is all that such a process does.

    Args:
        pipe: The descriptor of a connection to the study. The study sends names of run folders. It
            receives pairs: "ready", "unread", "event" or "end", and what belongs to it.
        setup: The descriptor of a file of :func:`cpsam.study.shared_pickle.write_shared`: how to
            train, and the runs by name.
    """
    connection, names = Connection(pipe), SimpleQueue[str]()
    # Terminals and batch systems send their signals to all processes of a job. The study decides
    # when to stop. It closes the pipe, and then this process sends itself SIGTERM.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    Thread(target=receive, args=(connection, names), daemon=True).start()
    try:
        try:
            train, runs = read_shared(setup)
        except Exception as error:  # for example a module that only the study can import
            connection.send(("unread", f"{type(error).__name__}: {error}"))
            return
        connection.send(("ready", None))
        while True:
            connection.send(("end", execute(runs[names.get()], train, connection)))
    except (KeyboardInterrupt, OSError):
        return


def receive(connection: Connection, names: "SimpleQueue[str]") -> None:
    """Takes the names of runs. If the pipe is closed, it stops this process after its step."""
    try:
        while True:
            names.put(connection.recv())
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)


def execute(run: PlannedRun, train: Train, connection: Connection) -> Any:
    """Returns the run with its end, or the error that ends the study."""

    def tell(event: Event) -> None:
        try:
            connection.send(("event", event))
        except OSError:  # The study has ended. The run saves a checkpoint and stops.
            raise KeyboardInterrupt from None

    try:
        return execute_run(run, train, tell)
    except (CpsamError, OSError) as error:
        return error
    except Exception:
        return RuntimeError(f"a process for runs failed:\n{traceback.format_exc()}")
