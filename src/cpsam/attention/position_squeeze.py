"""The position-squeeze branch of CPSAM: mean and maximum over the positions gate the features."""

import torch
from torch import Tensor, nn

from cpsam.attention._common import (
    check_at_least_one,
    check_choice,
    hidden_channels,
    starts_at_zero,
)
from cpsam.functional import channel_affinity, position_squeeze


class MlpInteraction(nn.Module):
    """Computes ``M(a) + M(b)``, M a bottleneck of two layers whose last layer starts at zero."""

    def __init__(self, in_channels: int, reduction: int, *, device=None, dtype=None) -> None:
        super().__init__()
        hidden = hidden_channels(in_channels, reduction)
        self.squeeze = nn.Linear(in_channels, hidden, device=device, dtype=dtype)
        self.expand = starts_at_zero(nn.Linear(hidden, in_channels, device=device, dtype=dtype))

    def forward(self, mean: Tensor, maximum: Tensor) -> Tensor:
        related = self.bottleneck(mean.flatten(1)) + self.bottleneck(maximum.flatten(1))  # (N, C)
        return related.unsqueeze(-1).unsqueeze(-1)  # (N, C, 1, 1)

    def bottleneck(self, squeezed: Tensor) -> Tensor:
        return self.expand(self.squeeze(squeezed).relu())


class AffinityInteraction(nn.Module):
    """Computes ``w * (A a) + v``, A the affinity of all channels.

    w and v, one number per channel, start at zero. The sharpness tau of A starts at one.
    """

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.weight = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.tau)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, mean: Tensor, maximum: Tensor) -> Tensor:
        related = channel_affinity(mean, maximum, self.tau)  # (N, C, 1, 1)
        return self.weight.view(-1, 1, 1) * related + self.bias.view(-1, 1, 1)


INTERACTIONS = ("mlp", "affinity")


class PositionSqueezeAttention(nn.Module):
    """Squeezes the positions twice, relates the channels, and gates the features.

    ``p = g * x`` with ``g = 2 sigmoid(relate(mean_l x_l, max_l x_l))``. `relate` starts at zero, so
    a new gate is exactly one.

    Args:
        in_channels: Number of channels C.
        reduction: Bottleneck ratio of ``"mlp"``; the hidden width is ``max(8, C // reduction)``.
            ``"affinity"`` has no bottleneck.
        interaction: ``"mlp"``, a bottleneck shared by mean and maximum, or ``"affinity"``, a (C, C)
            attention between the channels.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1, or `interaction` is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(PositionSqueezeAttention(64)(x), x)
        True

    Source:
        The abstract's "uses both avg and max pooling to compress the spatial dimension and
        Integrate the correlation characteristics between all channel maps". How the channels
        interact is not public: both readings are ours.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 16,
        interaction: str = "mlp",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, reduction=reduction)
        check_choice("interaction", interaction, INTERACTIONS)
        self.in_channels, self.reduction, self.interaction = in_channels, reduction, interaction
        if interaction == "mlp":
            self.relate = MlpInteraction(in_channels, reduction, device=device, dtype=dtype)
        else:
            self.relate = AffinityInteraction(in_channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        mean, maximum = position_squeeze(x)  # (N, C, 1, 1)
        return self.gates(mean, maximum) * x

    def gates(self, mean: Tensor, maximum: Tensor) -> Tensor:
        return 2 * self.relate(mean, maximum).sigmoid()  # (N, C, 1, 1)
