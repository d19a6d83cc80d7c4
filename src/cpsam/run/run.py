"""One run: an arm with a seed, as a specification that names its folder by its content."""

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpsam.checkpoint import load_weights
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import Upkeep
from cpsam.config.study import Task
from cpsam.config.transform import Transform
from cpsam.data import Dataset, StreamedSplit, hold_out, load_dataset
from cpsam.data.verify import read_skip
from cpsam.errors import DataError, UserError, unknown
from cpsam.evaluate import SPLITS, evaluate
from cpsam.identity import check_identity
from cpsam.insert import insert_from_config
from cpsam.models import create_model, expected_scaling, hash_weights
from cpsam.run.arm import Arm, missing_arguments, parse_arm
from cpsam.run.records import RunConfig
from cpsam.train.distributed import Distributed
from cpsam.train.run_folder import CONFIG, SETTLED, WEIGHTS, read_json
from cpsam.train.train import train
from cpsam.typed import checked

Event = dict[str, Any]
OnEvent = Callable[[Event], None]

COLUMNS = ("image_column", "label_column")

# The split is drawn once for all seeds, so that runs of different seeds are measured on the same
# images.
SPLIT_SEED = 0
ADDED = ("dataset", SETTLED)  # to the content of a run, by training


@dataclass(frozen=True)
class RunSpec:
    """Everything that the result of a run depends on, but for the software and the processor."""

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
    def of(
        cls,
        task: Task,
        dataset: Dataset,
        weights_sha256: str | None,
        arm: Arm,
        seed: int,
        recipe: Recipe,
        threads: int,
    ) -> "RunSpec":
        """The specification of a run on a loaded data set; threads = 0 takes as many as
        torch does.
        """
        threads = threads or torch.get_num_threads()
        streamed = isinstance(dataset.train, StreamedSplit)
        fixed = dataset.fingerprint, dataset.mean, dataset.std, weights_sha256
        return cls(task, *fixed, arm, seed, recipe, threads, streamed, dataset.skipped)

    def as_config(self) -> dict[str, Any]:
        """What the loop does not know of itself, as plain data. Where files lie is not part of it;
        what is in them is.
        """
        return {
            "data": {
                "name": self.task.data,
                "image_size": self.task.image_size,
                "validation": self.task.validation,
                "fingerprint": self.data_fingerprint,
                "mean": list(self.mean),
                "std": list(self.std),
                **(
                    {"stream": True, "transform": asdict(self.task.transform)}
                    if self.streamed
                    else {}
                ),
                **({"skipped": list(self.skipped)} if self.skipped else {}),
                **{
                    name: value
                    for name in COLUMNS
                    if (value := getattr(self.task, name)) is not None
                },
            },
            "model": self.task.model,
            "weights_sha256": self.weights_sha256,
            **({"weights_key": self.task.weights_key} if self.task.weights_key else {}),
            "attention": self.arm.attention,
            "arguments": dict(self.arm.arguments),
            # the bare network is the same wherever blocks would go
            "at": [] if self.arm.attention == "none" else list(self.task.at),
            "threads": self.threads,
        }

    @cached_property
    def folder_name(self) -> str:
        """Its arm and seed for people, and a hash of its content."""
        content = {**self.as_config(), "seed": self.seed, "recipe": self.recipe.to_dict()}
        return f"{self.arm.slug}-seed{self.seed}-{content_hash(content)}"

    def build(self, dataset: Dataset, on_event: OnEvent = lambda event: None) -> nn.Module:
        """The network of this run as it starts: the same host for all arms of a seed."""
        return build_arm(self.task, self.arm, dataset, self.seed, on_event)


def content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def is_named_by(folder_name: str, config: Mapping[str, Any]) -> bool:
    """Whether the name of a run's folder is that which its `config.json` gives."""
    content = {key: value for key, value in config.items() if key not in ADDED}
    try:
        return folder_name.rpartition("-")[2] == content_hash(content)
    except RecursionError:
        return False


def build_arm(
    task: Task, arm: Arm, dataset: Dataset, seed: int, on_event: OnEvent = lambda event: None
) -> nn.Module:
    return create_model(
        task.model,
        dataset.num_classes,
        in_channels=dataset.in_channels,
        attention=arm.maker() or "none",
        at=task.at,
        weights=task.weights,
        weights_key=task.weights_key,
        seed=seed,
        on_note=noted(on_event),
    )


def noted(on_event: OnEvent) -> Callable[[str], None]:
    """Turns a line into an event."""
    return lambda text: on_event({"event": "note", "text": text})


def load_task(
    task: Task, on_event: OnEvent, skip: Set[str] = frozenset()
) -> tuple[Dataset, str | None]:
    """The data of a task as its network wants them, without the images in `skip` and
    `task.skip_bad`, and the hash of its weights.
    """

    def progress(what: str, done: int, total: int) -> None:
        on_event({"event": "data", "what": what, "done": done, "total": total})

    if task.skip_bad is not None:
        skip |= read_skip(task.skip_bad)
    dataset = load_dataset(
        task.data,
        task.data_root,
        image_size=task.image_size,
        stream=task.stream,
        transform=task.transform,
        workers=task.workers,
        skip=skip,
        image_column=task.image_column,
        label_column=task.label_column,
        progress=progress,
    )
    for text in dataset.notes:
        on_event({"event": "note", "text": text})
    if task.validation:
        dataset = hold_out(dataset, task.validation, SPLIT_SEED)
    if task.weights is None:
        return dataset, None
    weights_sha256 = hash_weights(task.weights)
    # A pretrained network expects pixels scaled as in its own training.
    expected, why = expected_scaling(task.model, task.weights, sha256=weights_sha256)
    if expected is None:
        why = f"pixels are scaled by the statistics of the data set: {why}"
    elif len(expected[0]) != dataset.in_channels:
        known = (
            f"what {task.model} expects is known for {len(expected[0])} channels, and the images"
            f" have {dataset.in_channels}"
        )
        why = f"pixels are scaled by the statistics of the data set: {known}"
    else:
        dataset = replace(dataset, mean=expected[0], std=expected[1])
    on_event({"event": "note", "text": why})
    return dataset, weights_sha256


def execute(
    spec: RunSpec,
    dataset: Dataset,
    folder: Path,
    on_event: OnEvent,
    upkeep: Upkeep | None = None,
    distributed: Distributed | None = None,
) -> dict[str, Any]:
    """Train a run in its folder, or read it there if it is finished; returns its summary."""
    torch.set_num_threads(spec.threads)
    options: dict[str, Any] = {
        "config": spec.as_config(),
        "on_event": on_event,
        "upkeep": upkeep,
        "distributed": distributed,
    }
    return train(
        spec.build(dataset, on_event),
        dataset,
        spec.recipe,
        seed=spec.seed,
        folder=folder,
        **options,
    )


def train_one(
    task: Task,
    attention: str,
    recipe: Recipe,
    seed: int,
    threads: int,
    folder: Path,
    on_event: OnEvent,
    *,
    upkeep: Upkeep | None = None,
    distributed: Distributed | None = None,
) -> dict[str, Any]:
    """Trains one arm with one seed in `folder`.

    With `threads` = 0, torch's own number of threads is taken. All processes of `distributed` train
    together.
    """
    distributed = distributed or Distributed()
    arm = parse_arm(attention)
    if missing := missing_arguments(arm.attention, arm.arguments):
        raise UserError(
            f"{arm.name} needs a value for {', '.join(missing)}, as in {arm.name}:{missing[0]}=16"
        )
    dataset, weights_sha256 = distributed.main_first(lambda: load_task(task, on_event))
    spec = RunSpec.of(task, dataset, weights_sha256, arm, seed, recipe, threads)
    return execute(spec, dataset, folder, completed(task, arm, on_event), upkeep, distributed)


def completed(task: Task, arm: Arm, on_event: OnEvent) -> OnEvent:
    """Returns `on_event` that adds to a run's start what its training does not know: names, and
    whether the head is new.
    """
    heads: list[str] = []

    def tell(event: Event) -> None:
        if event["event"] == "note" and event["text"].startswith("weights: classifier"):
            heads.append(event["text"])
        if event["event"] == "start":
            weights = None if task.weights is None else str(task.weights)
            about = {"weights": weights, "new_head": weights is None or bool(heads)}
            event = {
                **event,
                "model": task.model,
                "attention": arm.name,
                **about,
            }
        on_event(event)

    return tell


def evaluate_run(
    folder: Path, data_root: Path | None, split: str, on_event: OnEvent
) -> dict[str, Any]:
    """Rebuild the network of a run from its last checkpoint and measure it on the data of the run.

    Raises:
        UserError: If there is no run, or `split` is unknown.
        DataError: If the data is not that of the run, or a file of the run is damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    config, weights = read_json(folder / CONFIG), folder / WEIGHTS
    if config is None:
        raise UserError(f"{folder} holds no run: {CONFIG} is missing")
    if not weights.is_file():
        raise UserError(f"the run in {folder} is not finished: {WEIGHTS} is missing")
    checked(RunConfig, config, str(folder / CONFIG))
    data = config["data"]
    task = Task(
        data["name"],
        data_root,
        data["image_size"],
        data["validation"],
        config["model"],
        stream=data.get("stream"),
        transform=Transform(**data.get("transform", {})),
        **{name: data.get(name) for name in COLUMNS},
    )
    dataset, _ = load_task(task, on_event, frozenset(data.get("skipped", ())))
    if dataset.fingerprint != data["fingerprint"]:
        raise DataError(
            f"the data in {data_root} is not what the run in {folder} was trained on: its"
            " fingerprint differs"
        )
    dataset = replace(dataset, mean=tuple(data["mean"]), std=tuple(data["std"]))
    tensors, meta = load_weights(weights, noted(on_event))
    check_identity(meta, config, f"weights {weights}")
    model = create_model(
        task.model, dataset.num_classes, in_channels=dataset.in_channels, attention="none"
    )
    insert_from_config(model, meta["attention"])
    model.load_state_dict(tensors)
    setting = config[SETTLED]
    torch.set_num_threads(setting["threads"])
    result = evaluate(
        model,
        dataset,
        split,
        precision=setting["precision"],
        channels_last=setting["channels_last"],
    )
    return {"schema": 1, "run": str(folder), "split": split, **result}
