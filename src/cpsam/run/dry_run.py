"""Says what a run would be and cost, without making it."""

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.evaluate import autocast
from cpsam.measure import count_parameters, saved_bytes
from cpsam.run.arm import BARE, check_complete, parse_arm
from cpsam.run.build import Host
from cpsam.run.cost import cost_of
from cpsam.run.data import load_task
from cpsam.run.events import OnEvent
from cpsam.run.names import with_known_names
from cpsam.run.spec import RunSpec
from cpsam.train.compute import choose_compute
from cpsam.train.step_time import run_seconds, seconds_per_image

BYTES = 4  # weights, gradients and moments are float32
# Images to train and to measure on, classes and (C, H, W), for those who plan before they have the
# data.
PUBLISHED = {
    "cifar10": (50_000, 10_000, 10, (3, 32, 32)),
    "cifar100": (50_000, 10_000, 100, (3, 32, 32)),
    "imagenet": (1_281_167, 50_000, 1000, (3, 224, 224)),
}
TRIED = (2, 3)  # images in a batch


@dataclass(frozen=True)
class Size:
    """Of a data set."""

    train: int
    test: int
    classes: int
    image_shape: tuple[int, int, int]


def dry_run(
    task: Task, attention: str, recipe: Recipe, seed: int, threads: int, on_event: OnEvent
) -> dict[str, Any]:
    """Returns the configuration of a run and its costs, as plain data.

    Nothing is downloaded: where no folder of data is given, published sizes stand for CIFAR and
    ImageNet, and `data` says so.

    Args:
        task: As for :func:`cpsam.run.train_run.train_arm`, and so on.

    Returns:
        `memory_bytes` is for one process that takes the whole batch: weights, gradients, moments
        and averages, and what the forward keeps for the backward pass, measured on a few images;
        what kernels and loading processes take comes on top. `disk_bytes` is for the run folder
        with two checkpoints. `timing` is an estimate for this machine from two timed steps, without
        the time to load images.

    Raises:
        UserError: If the run would be refused.
        DataError: If the data is missing or bad.
    """
    arm, task = check_complete(parse_arm(attention)), with_known_names(task)
    compute = choose_compute(recipe)
    config: dict[str, Any] = {
        "task": plain(asdict(task)),
        "attention": arm.name,
        "threads": threads or compute.threads,
    }
    if task.data in PUBLISHED and task.data_root is None and not os.environ.get("CPSAM_DATA"):
        size, source = published(task), "no folder of data given: sizes as published"
    else:
        loaded = load_task(task, on_event)
        dataset = loaded.dataset
        config = RunSpec.of(loaded, arm, seed, recipe, threads).as_config()
        size = Size(
            len(dataset.train),
            len(dataset.evaluation),
            dataset.num_classes,
            loaded.input_shape,
        )
        source = f"{len(dataset.skipped)} bad images left out" if dataset.skipped else ""
    host = Host(task, size.classes, size.image_shape[0])
    widths: list[int] = []
    model = host.build(arm, seed, on_event, widths.append)
    bare = host.build(BARE, seed)
    cost = cost_of(model, size.image_shape, widths)
    steps = (size.train + recipe.batch_size - 1) // recipe.batch_size - (
        size.train % recipe.batch_size == 1
    )
    fixed, per_image = kept_bytes(model, size.image_shape, compute.precision)
    timed = replace(compute, threads=config["threads"])
    pace = seconds_per_image(model, recipe, size.image_shape, size.classes, timed)
    weights_bytes = BYTES * cost.parameters
    moments = 2 if recipe.optimizer == "adamw" else 1
    average = int(recipe.ema_decay > 0)
    return {
        "schema": 1,
        "config": {**config, "seed": seed, "recipe": recipe.to_dict(), "settled": asdict(compute)},
        "data": {**asdict(size), "note": source},
        "places": list(cost.places),
        "parameters": cost.parameters,
        "parameters_added": cost.parameters - count_parameters(bare),
        "macs": cost.macs,
        "steps_per_epoch": steps,
        "steps": steps * recipe.epochs,
        # the backward pass is two forwards
        "training_macs": 3 * cost.macs * size.train * recipe.epochs,
        "memory_bytes": {
            "weights": weights_bytes,
            "gradients": weights_bytes,
            "optimizer": moments * weights_bytes + average * weights_bytes,
            "kept_for_backward": fixed + per_image * -(-recipe.batch_size // recipe.accumulate),
        },
        "disk_bytes": (2 * (1 + moments + average) + 1) * weights_bytes,
        "timing": {"run_seconds": run_seconds(pace, recipe, size.train, size.test)},
    }


def kept_bytes(
    model: nn.Module, image_shape: tuple[int, int, int], precision: str
) -> tuple[int, int]:
    """Returns the bytes kept for the backward pass: the fixed part, and the part per image."""
    few, more = TRIED
    with autocast(precision, torch.device("cpu")):
        kept = [saved_bytes(model, torch.zeros(count, *image_shape)) for count in TRIED]
    per_image = (kept[1] - kept[0]) // (more - few)
    return kept[0] - few * per_image, per_image


def published(task: Task) -> Size:
    train, test, classes, (channels, height, width) = PUBLISHED[task.data]
    held = round(task.validation * train)
    side = task.image_size if task.data == "imagenet" else None
    return Size(train - held, held or test, classes, (channels, side or height, side or width))


def plain(value: Any) -> Any:
    """Returns paths as text and tuples as lists."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | None) else str(value)
