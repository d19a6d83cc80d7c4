"""Several runs at once, on this machine or on many, by Ray, which places them; one whose worker
dies goes on from its last checkpoint.
"""

import os
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from cpsam.config.study import Task
from cpsam.errors import CpsamError, DataError, StoppedError, UserError
from cpsam.run.data import LoadedTask, load_task
from cpsam.run.events import OnEvent, silent
from cpsam.run.spec import RunSpec
from cpsam.run.train_run import train_run
from cpsam.study.executor import POLL_SECONDS
from cpsam.study.run_end import Execute, Job, attempt, outcome, record_end

CONNECT_SECONDS = 10
GRACE_SECONDS = 60  # for runs to write a checkpoint when they are told to stop
SPIN_COUNT = "1000"


def worker_environment(threads: int) -> dict[str, str]:
    """What a worker has to have set before it loads torch.

    Threads that wait for each other in a loop (libgomp does so for a long time by default) take the
    processor from those they wait for as soon as there are more threads than cores. Two processes
    of two threads on two cores made 0.45 steps a second each; 7.6 when they wait short, and 12.6
    with a thread each (ResNet-20 with CPSAM, 32 digits a step). So every run has its own number,
    and waits short.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": SPIN_COUNT,
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@lru_cache(maxsize=1)
def load_once(task: Task, skipped: frozenset[str]) -> LoadedTask:
    """Loads the data of a task, once for all runs that a worker makes."""
    return load_task(task, silent, skipped)


def execute_on_worker(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Train a run on data that this process loads itself.

    Raises:
        DataError: If the data here is not that of the plan.
    """
    loaded = load_once(spec.task, frozenset(spec.skipped))
    if loaded.dataset.fingerprint != spec.data_fingerprint:
        raise DataError(
            f"the data on {os.uname().nodename} is not that of the plan: its fingerprint differs"
        )
    return train_run(spec, loaded, folder, on_event)


def check_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address} ({error})") from None


class Mailbox:
    """Where workers leave what they have to tell, an actor."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def take(self) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return events


def work(job: Job, execute: Execute, mailbox: Any) -> bool:
    """What a worker does: one attempt at one run; False if another process is at it."""
    if not job.folder.parent.is_dir():
        raise UserError(
            f"{job.folder.parent} is not there on {os.uname().nodename}: --out must be on storage"
            " that all nodes share"
        )
    return attempt(
        job,
        execute,
        lambda event: mailbox.put.remote(
            {**event, "node": os.uname().nodename, "pid": os.getpid()}
        ),
    )


class RayExecutor:
    """Runs as tasks of a Ray cluster. A context: a cluster that it started ends with it.

    Args:
        address: Of a running cluster, ``"auto"`` for that of this machine; None starts one here, on
            the loopback interface alone.
        execute: Trains a run; sent to the workers.
        cpus: Cores that a run is given, a fraction if wanted; None: its threads.
        gpus: GPUs that a run is given, a fraction if wanted; None: one, where the cluster has any.
        retries: How often a run is tried again after its worker died. Then it counts as failed.
        poll_seconds: How often to look.

    Raises:
        UserError: If Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        execute: Execute = execute_on_worker,
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
        self.address, self.execute, self.cpus, self.gpus, self.retries = (
            address,
            execute,
            cpus,
            gpus,
            retries,
        )
        self.poll_seconds = poll_seconds

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

    def run(self, jobs: Sequence[Job], on_event: OnEvent) -> None:
        Dispatch(self, on_event).run_all(jobs)

    def submit(self, job: Job, mailbox: Any) -> Any:
        gpus = (
            self.gpus
            if self.gpus is not None
            else float(self.ray.cluster_resources().get("GPU", 0) > 0)
        )
        cpus = job.spec.threads if self.cpus is None else self.cpus
        self.check_fits(cpus, gpus)
        environment = {"env_vars": worker_environment(job.spec.threads)}
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_retries": 0,
            "runtime_env": environment,
            "name": job.folder.name,
        }
        return self.ray.remote(work).options(**options).remote(job, self.execute, mailbox)

    def check_fits(self, cpus: float, gpus: float) -> None:
        """A task that no node can ever take would wait for ever."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            has = "; ".join(
                f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes
            )
            raise UserError(
                f"no node has the {cpus:g} cores and {gpus:g} GPUs that a run is given; there are:"
                f" {has}"
            )


class Dispatch:
    """One call of :meth:`RayExecutor.run`: what is under way, and what is to be tried again."""

    def __init__(self, executor: RayExecutor, on_event: OnEvent) -> None:
        self.executor, self.on_event, self.ray = executor, on_event, executor.ray
        self.mailbox = self.ray.remote(Mailbox).options(num_cpus=0).remote()
        self.under_way: dict[Any, Job] = {}
        self.deaths: dict[str, int] = {}
        self.held: list[Job] = []  # that another master's workers are at

    def run_all(self, jobs: Sequence[Job]) -> None:
        try:
            for job in jobs:
                if outcome(job.folder) is not None:
                    attempt(job, self.executor.execute, self.on_event)  # reads it
                else:
                    self.start(job)
            while self.under_way or self.held:
                self.step()
            self.pass_on()
        except BaseException:
            self.stop()
            raise

    def start(self, job: Job) -> None:
        self.under_way[self.executor.submit(job, self.mailbox)] = job

    def step(self) -> None:
        waits = list(self.under_way)
        ended = (
            self.ray.wait(waits, num_returns=1, timeout=self.executor.poll_seconds)[0]
            if waits
            else []
        )
        self.pass_on()
        for task in ended:
            self.collect(task)
        if not ended and self.held:
            if not waits:
                time.sleep(self.executor.poll_seconds)
            again, self.held = self.held, []
            for job in again:
                self.start(job)

    def collect(self, task: Any) -> None:
        job = self.under_way.pop(task)
        try:
            if not self.ray.get(task):
                self.held.append(job)
        except (CpsamError, OSError) as error:
            if not isinstance(error, StoppedError):
                raise getattr(error, "cause", error) from None
            self.died(job, str(error))
        except self.ray.exceptions.RayTaskError:
            raise
        except self.ray.exceptions.RayError as error:
            self.died(job, f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def died(self, job: Job, why: str) -> None:
        """Its worker was killed, or its node went away: the run itself has done nothing wrong, up
        to a number of times.
        """
        self.deaths[job.folder.name] = deaths = self.deaths.get(job.folder.name, 0) + 1
        self.on_event({**job.header, "event": "died", "error": why, "deaths": deaths})
        if deaths <= self.executor.retries:
            self.start(job)
            return
        record_end(job.folder, "failed", f"its worker died {deaths} times ({why})")
        attempt(job, self.executor.execute, self.on_event)

    def pass_on(self) -> None:
        for event in self.ray.get(self.mailbox.take.remote()):
            self.on_event(event)

    def stop(self) -> None:
        """Let running tasks write a checkpoint."""
        for task in self.under_way:
            self.ray.cancel(task, force=False)
        if self.under_way:
            self.ray.wait(
                list(self.under_way), num_returns=len(self.under_way), timeout=GRACE_SECONDS
            )
