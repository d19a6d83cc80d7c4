"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class Ema:
    """A second network whose weights follow the weights of the first.

    timm's `ModelEmaV3` goes through the state dict, where a weight that two layers share occurs
    twice and would move twice. Here each tensor moves once. Floating-point buffers, such as the
    statistics of norms, are averaged too; counters are copied.

    Args:
        model: The network in training, on its device already. It must be changed in place only, as
            optimizers do.
        decay: Fraction of the average that remains at each step in the long run. See
            :meth:`decay_at`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = [
            *zip(self.module.parameters(), model.parameters(), strict=True),
            *zip(self.module.buffers(), model.buffers(), strict=True),
        ]
        self.floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def decay_at(self, step: int) -> float:
        """Returns ``min(decay, (1 + step) / (10 + step))``: it soon forgets the initial weights."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follows the network after `step` steps.

        It depends on nothing else, so a resumed run continues with the same bits.
        """
        if self.floating:
            averages, sources = (list(tensors) for tensors in zip(*self.floating, strict=True))
            torch._foreach_lerp_(averages, sources, 1 - self.decay_at(step))
        for count, source in self.counters:
            count.copy_(source)
