"""What a run is: a specification that names its folder by its content."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import torch

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.data import StreamedSplit
from cpsam.files import hash_json
from cpsam.run.arm import Arm
from cpsam.run.data import LoadedTask
from cpsam.train.run_config import SETTLED
from cpsam.typed import as_json, checked

# Fields of a task that are written elsewhere in the configuration, or that no result depends on.
NOT_OF_DATA = "data", "data_root", "model", "weights", "weights_key", "at", "workers", "skip_bad"
# Other fields of a task are written where they are not at their defaults.
WRITTEN_BY_HAND = (*NOT_OF_DATA, "image_size", "validation", "stream", "transform")
ADDED = ("dataset", SETTLED)  # training adds these to the content of a run


@dataclass(frozen=True)
class RunSpec:
    """Everything that the result of a run depends on, except for the software and the processor."""

    task: Task
    data_fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_sha256: str | None
    arm: Arm
    seed: int
    recipe: Recipe
    threads: int
    streamed: bool = False
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, loaded: LoadedTask, arm: Arm, seed: int, recipe: Recipe, threads: int) -> "RunSpec":
        """Returns the specification of a run on loaded data; threads = 0 takes as many as torch."""
        dataset = loaded.dataset
        return cls(
            loaded.task,
            dataset.fingerprint,
            dataset.mean,
            dataset.std,
            loaded.weights_sha256,
            arm,
            seed,
            recipe,
            threads or torch.get_num_threads(),
            isinstance(dataset.train, StreamedSplit),
            dataset.skipped,
        )

    def as_config(self) -> dict[str, Any]:
        """Returns what the training loop does not know by itself, as plain data.

        It says what is in the files, and not where they lie.
        """
        task = self.task
        data: dict[str, Any] = {
            "name": task.data,
            "image_size": task.image_size,
            "validation": task.validation,
            "fingerprint": self.data_fingerprint,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.streamed:
            data |= {"stream": True, "transform": asdict(task.transform)}
        if self.skipped:
            data["skipped"] = list(self.skipped)
        for each in fields(task):
            if each.name not in WRITTEN_BY_HAND and getattr(task, each.name) != each.default:
                data[each.name] = as_json(getattr(task, each.name))
        return {
            "data": data,
            "model": task.model,
            "weights_sha256": self.weights_sha256,
            **({"weights_key": task.weights_key} if task.weights_key else {}),
            "attention": self.arm.attention,
            "arguments": dict(self.arm.arguments),
            # The bare network is the same wherever blocks would go.
            "at": [] if self.arm.attention == "none" else list(task.at),
            "threads": self.threads,
        }

    @property
    def content(self) -> dict[str, Any]:
        """The whole specification as plain data."""
        return {**self.as_config(), "seed": self.seed, "recipe": self.recipe.to_dict()}

    @cached_property
    def folder_name(self) -> str:
        """Its arm and seed for people, and a hash of its content."""
        return f"{self.arm.slug}-seed{self.seed}-{content_hash(self.content)}"


def recorded_task(config: Mapping[str, Any], where: str) -> Task:
    """Returns the task of a run from its configuration, without what lies outside of it.

    Raises:
        DataError: If a value is of another type, or breaks a rule.
    """
    data = {key: value for key, value in config["data"].items() if key not in NOT_OF_DATA}
    return checked(Task, {**data, "data": config["data"]["name"], "model": config["model"]}, where)


def content_hash(content: Mapping[str, Any]) -> str:
    return hash_json(content)[:10]


def is_named_by(folder_name: str, config: Mapping[str, Any]) -> bool:
    """Tells whether the name of a run's folder is the one that its `config.json` gives."""
    content = {key: value for key, value in config.items() if key not in ADDED}
    try:
        return folder_name.rpartition("-")[2] == content_hash(content)
    except RecursionError:
        return False
