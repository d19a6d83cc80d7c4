"""Loads the data of a task as its network wants them."""

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import torch
from torch import nn

from cpsam.config.task import Task
from cpsam.data import Dataset, Split, hold_out, load_dataset
from cpsam.data.verify import read_skip
from cpsam.models import expected_scaling, hash_weights
from cpsam.run.arm import Arm
from cpsam.run.build import Host
from cpsam.run.events import OnEvent, as_note, as_progress, silent

# The split is drawn once for all seeds, so that runs of different seeds are measured on the same
# images.
SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class LoadedTask:
    """A task with its data.

    Attributes:
        task: The data, the network and the places, as they were asked for.
        dataset: The data, scaled as the network expects.
        weights_sha256: The hash of the pretrained weights; None if there are none.
        network: A callable that makes the network, in place of the name that the task gives.
    """

    task: Task
    dataset: Dataset
    weights_sha256: str | None = None
    network: Callable[[], nn.Module] | None = None

    @property
    def host(self) -> Host:
        dataset = self.dataset
        return Host(self.task, dataset.num_classes, dataset.in_channels, self.network)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.dataset.in_channels, *self.dataset.image_size

    def build(self, arm: Arm, seed: int, on_event: OnEvent = silent) -> nn.Module:
        """Returns the network of an arm as a run of this seed starts."""
        return self.host.build(arm, seed, on_event)


def load_task(task: Task, on_event: OnEvent, skip: Set[str] = frozenset()) -> LoadedTask:
    """Loads the data of a task, without the images in `skip` and `task.skip_bad`."""
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
        progress=as_progress(on_event),
    )
    return prepare(task, dataset, on_event)


def prepare(task: Task, dataset: Dataset, on_event: OnEvent) -> LoadedTask:
    """Holds out the validation split of a task, and scales pixels as its weights expect."""
    note = as_note(on_event)
    for text in dataset.notes:
        note(text)
    if task.validation:
        dataset = hold_out(dataset, task.validation, SPLIT_SEED)
    if task.weights is None:
        return LoadedTask(task, dataset)
    weights_sha256 = hash_weights(task.weights)
    if isinstance(dataset.train, Split) and dataset.train.dtype != torch.uint8:
        return LoadedTask(task, dataset, weights_sha256)  # floats are taken as they are
    # A pretrained network expects pixels scaled as in its own training.
    expected, why = expected_scaling(task.model, task.weights, sha256=weights_sha256)
    if expected is not None and len(expected[0]) != dataset.in_channels:
        channels, expected = len(expected[0]), None
        why = (
            f"what {task.model} expects is known for {channels} channels, and the images have"
            f" {dataset.in_channels}"
        )
    if expected is None:
        note(f"pixels are scaled by the statistics of the data set: {why}")
    else:
        note(why)
        dataset = replace(dataset, mean=expected[0], std=expected[1])
    return LoadedTask(task, dataset, weights_sha256)
