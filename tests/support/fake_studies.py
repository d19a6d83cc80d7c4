"""Studies whose runs take milliseconds and watch over themselves: each notes every way in which it
should not have been started.
"""

import fcntl
import json
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import DivergedError
from cpsam.files import write_atomically
from cpsam.run.build import Host
from cpsam.run.cost import Cost
from cpsam.run.data import LoadedTask
from cpsam.run.events import OnEvent
from cpsam.run.records import read_run
from cpsam.run.spec import RunSpec
from cpsam.study import costs, make_plan
from cpsam.study.execute_run import PlannedRun
from cpsam.study.executor import InProcess
from cpsam.study.history import make_and_write_plan
from cpsam.study.run_reader import RunReader
from support.finished_runs import finish

VIOLATIONS, IDENTITY, ENDED = "violations.txt", ".identity", ".ended-"
SECONDS = 0.004


DATA = SimpleNamespace(
    fingerprint="f",
    mean=(0.5,),
    std=(0.5,),
    train=(),
    skipped=(),
    in_channels=1,
    image_size=(16, 16),
    num_classes=10,
)


def cheapen() -> None:
    """Without what costs a planner its time and has no part in what these tests are about. For
    processes that do nothing else.
    """
    make_plan.load_task = lambda task, on_event: LoadedTask(task, DATA)
    Host.build = lambda *arguments, **options: None
    costs.cost_of = lambda *arguments: Cost((), (), 10, 10)


def fake_study(arms: tuple[str, ...], seeds: tuple[int, ...], places: tuple[str, ...]) -> Study:
    settings = tuple(Setting(place, Task(at=(place,)), arms) for place in places)
    question = Contrast("cpsam", "none", places[0])  # the same, whatever arms are added
    return Study(
        name="fuzz",
        settings=settings,
        seeds=seeds,
        recipe=Recipe(epochs=1),
        primary=question,
        control=False,
    )


def accuse(folder: Path, what: str) -> None:
    with (folder.parent / VIOLATIONS).open("a") as file:
        file.write(f"{folder.name}: {what}\n")


def execute(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """A run of a few milliseconds that ends as its seed and arm say: done, diverged or failed."""
    identity = json.dumps(spec.content, sort_keys=True)
    folder.mkdir(exist_ok=True)
    if read_run(folder).outcome is not None:
        accuse(folder, "started though it had ended")
    with (folder / ".overlap").open("a") as overlap:
        try:
            fcntl.flock(overlap, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            accuse(folder, "started while another process was at it")
        there = (folder / IDENTITY).read_text() if (folder / IDENTITY).exists() else identity
        if there != identity:
            accuse(folder, "shared by two runs")
        write_atomically(folder / IDENTITY, identity.encode())
        time.sleep(random.random() * SECONDS)
        kind = int(folder.name[-1], 16)
        if kind == 0:
            raise DivergedError("the loss is nan")
        if kind == 1:
            raise RuntimeError("no memory")
        if read_run(folder).outcome is not None:
            accuse(folder, "ended twice")
        return finish(spec, folder, top1=kind / 16, token=f"{os.getpid()}-{time.monotonic_ns()}")


def master(study: Study, folder: Path) -> None:
    """What ``cpsam study`` does up to the results."""
    cheapen()
    settled, _ = make_and_write_plan(study, RunReader(folder), lambda event: None)
    runs = [
        PlannedRun(spec, folder / spec.folder_name, index, len(settled.runs))
        for index, spec in enumerate(settled.runs)
    ]
    InProcess(execute, poll_seconds=0.002).run(runs, lambda event: None)
    names = [run.folder.name for run in runs]
    (folder / f"{ENDED}{os.getpid()}").write_text(json.dumps(names))
    os._exit(0)  # not through the exit functions that the parent of this process registered
