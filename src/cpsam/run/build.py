"""Builds the network of an arm: the one place where a command does so."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.evaluate import checked_logits
from cpsam.models import create_model
from cpsam.run.arm import BARE, Arm
from cpsam.run.events import OnEvent, as_note, silent


@dataclass(frozen=True)
class Host:
    """The network of a task before any block is in it.

    Attributes:
        task: Names the network, its pretrained weights, and the places for blocks.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.
        network: A callable that makes the network, in place of the name that the task gives.
    """

    task: Task
    num_classes: int
    in_channels: int
    network: Callable[[], nn.Module] | None = None

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Refuses a network that does not answer images of this shape with one logit per class.

        Raises:
            UserError: If it does not.
        """
        network = self.build(BARE, seed=0).eval()
        with torch.no_grad():
            check_answer(network, torch.zeros(2, *input_shape), self.num_classes)

    def build(
        self,
        arm: Arm,
        seed: int,
        on_event: OnEvent = silent,
        on_width: Callable[[int], None] = lambda channels: None,
    ) -> nn.Module:
        """Returns the network with the blocks of an arm, as a run of this seed starts.

        The networks of all arms of a seed start from the same host.

        Args:
            arm: The block.
            seed: Of the run.
            on_event: Told what was decided about the network and its weights.
            on_width: Told the number of channels at each place.
        """
        make = arm.maker()

        def make_block(channels: int) -> nn.Module:
            on_width(channels)
            assert make is not None
            return make(channels)

        return create_model(
            self.network or self.task.model,
            self.num_classes,
            in_channels=self.in_channels,
            attention="none" if make is None else make_block,
            at=self.task.at,
            weights=self.task.weights,
            weights_key=self.task.weights_key,
            seed=seed,
            on_note=as_note(on_event),
        )


def check_answer(network: nn.Module, images: Tensor, num_classes: int) -> None:
    """Refuses a network that does not answer these images with one logit per class.

    Raises:
        UserError: If it does not.
    """
    try:
        output = network(images)
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        shape = "x".join(map(str, images.shape[1:]))
        raise UserError(f"the network cannot take images of {shape}: {why}") from error
    checked_logits(output, len(images), num_classes)
