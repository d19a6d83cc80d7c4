"""What stays the same during a run."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from cpsam.config.recipe import Recipe
from cpsam.data.batches import train_indices
from cpsam.data.dataset import Dataset
from cpsam.data.split import Indices
from cpsam.train.compute import Compute
from cpsam.train.distributed import Distributed
from cpsam.train.run_folder import RunFolder
from cpsam.train.schedule import learning_rate


@dataclass(frozen=True)
class TrainContext:
    """What a run trains, on what, how, where, and how many steps that takes.

    Args:
        model: The network in training.
        dataset: Its data, without augmentation if the recipe wants none.
        recipe: How it is trained.
        seed: The run's seed.
        run: The run folder.
        compute: Precision, memory format and threads.
        device: Where the model is.
        distributed: The processes that train together.
    """

    model: nn.Module
    dataset: Dataset
    recipe: Recipe
    seed: int
    run: RunFolder
    compute: Compute
    device: torch.device
    distributed: Distributed

    def batches(self, epoch: int) -> list[Indices]:
        """Returns the train images of each step of an epoch, over all processes."""
        return train_indices(
            len(self.dataset.train), batch_size=self.recipe.batch_size, seed=self.seed, epoch=epoch
        )

    @cached_property
    def batch_sizes(self) -> list[int]:
        """Images of each step of an epoch, the same in every epoch."""
        return [len(batch) for batch in self.batches(epoch=0)]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batch_sizes)

    @property
    def images_per_epoch(self) -> int:
        return sum(self.batch_sizes)

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch

    def lr(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        return learning_rate(self.recipe, step, self.steps_per_epoch)
