"""Builds the network of an arm: the one place where a command does so."""

from dataclasses import dataclass

from torch import nn

from cpsam.config.study import Task
from cpsam.models import create_model
from cpsam.run.arm import Arm
from cpsam.run.events import OnEvent, as_note, silent


@dataclass(frozen=True)
class Host:
    """The network of a task before any block is in it.

    Attributes:
        task: Names the network, its pretrained weights, and the places for blocks.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.
    """

    task: Task
    num_classes: int
    in_channels: int

    def build(self, arm: Arm, seed: int, on_event: OnEvent = silent) -> nn.Module:
        """Returns the network with the blocks of an arm, as a run of this seed starts.

        The networks of all arms of a seed start from the same host.
        """
        return create_model(
            self.task.model,
            self.num_classes,
            in_channels=self.in_channels,
            attention=arm.maker() or "none",
            at=self.task.at,
            weights=self.task.weights,
            weights_key=self.task.weights_key,
            seed=seed,
            on_note=as_note(on_event),
        )
