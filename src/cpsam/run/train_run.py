"""Trains one arm with one seed in a run folder."""

from pathlib import Path
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.config.task import Task
from cpsam.run.arm import Arm, check_complete, parse_arm
from cpsam.run.data import LoadedTask, load_task
from cpsam.run.events import Event, OnEvent
from cpsam.run.names import with_known_names
from cpsam.run.spec import RunSpec
from cpsam.torch_state import thread_count
from cpsam.train.distributed import Distributed
from cpsam.train.train import train


def train_run(
    spec: RunSpec,
    loaded: LoadedTask,
    folder: Path,
    on_event: OnEvent,
    options: RunOptions | None = None,
    distributed: Distributed | None = None,
) -> dict[str, Any]:
    """Trains a run in its folder, or reads it there if it is finished; returns its summary."""
    with thread_count(spec.threads):
        return train(
            loaded.build(spec.arm, spec.seed, on_event),
            loaded.dataset,
            spec.recipe,
            seed=spec.seed,
            folder=folder,
            config=spec.as_config(),
            on_event=lambda event: on_event(dict(event)),
            options=options,
            distributed=distributed,
        )


def train_arm(
    task: Task,
    attention: str,
    recipe: Recipe,
    seed: int,
    threads: int,
    folder: Path,
    on_event: OnEvent,
    *,
    options: RunOptions | None = None,
    distributed: Distributed | None = None,
) -> dict[str, Any]:
    """Trains an arm, given by its words, with one seed in `folder`; returns its summary.

    Args:
        task: The data, the network and the places.
        attention: The arm, as in ``"cpsam:fusion=sum"``.
        recipe: How to train.
        seed: Of everything that is drawn.
        threads: Of the run; 0 takes as many as torch.
        folder: New or empty, or of this very run.
        on_event: Told what happens.
        options: When to save and to stop.
        distributed: The processes that make the run together.
    """
    distributed = distributed or Distributed()
    arm, task = check_complete(parse_arm(attention)), with_known_names(task)
    loaded = distributed.main_first(lambda: load_task(task, on_event))
    spec = RunSpec.of(loaded, arm, seed, recipe, threads)
    return train_run(spec, loaded, folder, with_names(task, arm, on_event), options, distributed)


def with_names(task: Task, arm: Arm, on_event: OnEvent) -> OnEvent:
    """Returns an `on_event` that adds to the start of a run what its training does not know.

    These are the names of network and arm, and whether the head is new.
    """
    heads: list[str] = []

    def tell(event: Event) -> None:
        if event["event"] == "note" and event["text"].startswith("weights: classifier"):
            heads.append(event["text"])
        if event["event"] == "start":
            event = {
                **event,
                "model": task.model,
                "attention": arm.name,
                "weights": None if task.weights is None else str(task.weights),
                "new_head": task.weights is None or bool(heads),
            }
        on_event(event)

    return tell
