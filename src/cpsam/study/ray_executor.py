"""Executes several runs at once by Ray, on this machine or on many.

A run whose worker dies continues from its last checkpoint.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from cpsam.config.task import Task
from cpsam.errors import CpsamError, UserError
from cpsam.run.data import LoadedTask, load_task
from cpsam.run.events import OnEvent, silent
from cpsam.run.records import StoredRun
from cpsam.run.spec import RunSpec
from cpsam.study.dispatch import GRACE_SECONDS, Dispatch, Ended, WorkerDied, worker_environment
from cpsam.study.execute_run import PlannedRun, Train, execute_run
from cpsam.study.executor import POLL_SECONDS
from cpsam.study.run_process import train_checked

CONNECT_SECONDS = 10


@lru_cache(maxsize=1)
def load_once(task: Task, skipped: frozenset[str]) -> LoadedTask:
    """Loads the data of a task, once for all runs that a worker makes."""
    return load_task(task, silent, skipped)


def train_on_worker(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Trains a run on data that this process loads itself."""
    loaded = load_once(spec.task, frozenset(spec.skipped))
    return train_checked(spec, loaded, folder, on_event)


def check_reachable(address: str) -> None:
    """Refuses an address that does not answer soon. Ray itself tries for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address} ({error})") from None


class Mailbox:
    """Keeps the events of the workers until they are taken. It is an actor of Ray."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def take(self) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return events


def work(run: PlannedRun, train: Train, mailbox: Any) -> StoredRun | None:
    """Executes one run in a worker; returns None if another process works on it."""
    if not run.folder.parent.is_dir():
        raise UserError(
            f"{run.folder.parent} is not there on {os.uname().nodename}: the folder of a study must"
            " be on storage that all nodes share"
        )
    who = {"node": os.uname().nodename, "pid": os.getpid()}
    return execute_run(run, train, lambda event: mailbox.put.remote({**event, **who}))


class RayExecutor:
    """Executes runs as tasks of a Ray cluster.

    It is a context. A cluster that it started ends with it. The cluster decides how many runs it
    executes at once.

    Args:
        address: Of a running cluster, ``"auto"`` for that of this machine; None starts one here, on
            the loopback interface alone.
        train: Trains a run; sent to the workers.
        cpus: Cores that a run is given, a fraction if wanted; None: its threads.
        gpus: GPUs that a run is given, a fraction if wanted; None: one, where the cluster has any.
        retries: How often a run is tried again after its worker died. Then it counts as failed.
        poll_seconds: How often to look.

    Raises:
        UserError: If Ray is not installed, or there is no cluster at the address.
    """

    at_once = None

    def __init__(
        self,
        address: str | None = None,
        *,
        train: Train = train_on_worker,
        cpus: float | None = None,
        gpus: float | None = None,
        retries: int = 3,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        try:
            self.ray: Any = import_module("ray")
        except ImportError as error:
            raise UserError(
                "Ray is not installed: pip install ray, or in the clone pip install -e '.[cluster]'"
            ) from error
        self.address, self.train, self.poll_seconds = address, train, poll_seconds
        self.cpus, self.gpus, self.retries = cpus, gpus, retries

    def __enter__(self) -> "RayExecutor":
        if self.address and ":" in self.address:
            check_reachable(self.address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
        where: dict[str, Any] = {"address": self.address} if self.address else here
        try:
            self.ray.init(**where, log_to_driver=False, logging_level="ERROR", namespace="cpsam")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"no Ray cluster at {self.address or 'this machine'} ({str(error).splitlines()[0]})"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self.ray.shutdown()

    def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
        tasks = RayTasks(self, on_event)
        ended = Dispatch(tasks, on_event, self.retries, self.poll_seconds).run_all(runs)
        tasks.pass_on()
        return ended

    def submit(self, run: PlannedRun, mailbox: Any) -> Any:
        gpus = (
            self.gpus
            if self.gpus is not None
            else float(self.ray.cluster_resources().get("GPU", 0) > 0)
        )
        cpus = run.spec.threads if self.cpus is None else self.cpus
        self.check_fits(cpus, gpus)
        environment = {"env_vars": worker_environment(run.spec.threads)}
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_retries": 0,
            "runtime_env": environment,
            "name": run.folder.name,
        }
        return self.ray.remote(work).options(**options).remote(run, self.train, mailbox)

    def check_fits(self, cpus: float, gpus: float) -> None:
        """Refuses a task that no node can ever take, because it would wait for ever."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            has = "; ".join(
                f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes
            )
            raise UserError(
                f"no node has the {cpus:g} cores and {gpus:g} GPUs that a run is given; there are:"
                f" {has}"
            )


class RayTasks:
    """The tasks of one call of :meth:`RayExecutor.run`. Ray itself keeps those that must wait."""

    has_room = True

    def __init__(self, executor: RayExecutor, on_event: OnEvent) -> None:
        self.executor, self.on_event, self.ray = executor, on_event, executor.ray
        self.mailbox = self.ray.remote(Mailbox).options(num_cpus=0).remote()
        self.under_way: dict[Any, PlannedRun] = {}

    def start(self, run: PlannedRun) -> None:
        self.under_way[self.executor.submit(run, self.mailbox)] = run

    def wait(self, seconds: float) -> list[Ended]:
        tasks = self.ray.wait(list(self.under_way), num_returns=1, timeout=seconds)[0]
        self.pass_on()
        return [(self.under_way.pop(task), self.end_of(task)) for task in tasks]

    def end_of(self, task: Any) -> StoredRun | Exception | None:
        try:
            return self.ray.get(task)
        except (CpsamError, OSError) as error:
            return getattr(error, "cause", error)
        except self.ray.exceptions.RayTaskError as error:
            return error
        except self.ray.exceptions.RayError as error:
            return WorkerDied(f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def pass_on(self) -> None:
        for event in self.ray.get(self.mailbox.take.remote()):
            self.on_event(event)

    def stop(self) -> None:
        tasks = list(self.under_way)
        for task in tasks:
            self.ray.cancel(task, force=False)
        if tasks:
            self.ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_SECONDS)
