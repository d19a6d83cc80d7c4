"""The fusing convolution F(p, c) of CPSAM, in the four readings that the abstract leaves open.

`p` are re-weighted features, (N, C, H, W), and `c` is a context that is the same at every position,
(N, C, 1, 1). No reading has a bias: a norm follows. Where the block has no norm, the weights on p
start at zero in its place. The weights on c do not: the context itself starts at zero, and of two
factors at zero neither would ever learn.

`split` writes ``F(p, c)`` as ``conv(p + before, weight) + after``, before and after being (N, C, 1,
1) or None: c is never broadcast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpsam.attention.identity_start import before_norm

Split = tuple[Tensor, Tensor | None, Tensor | None]


def bare_conv(fusion: str, in_channels: int, norm: str, *, device=None, dtype=None) -> nn.Conv2d:
    """Returns the convolution that is left of a fusion without a context, ``F(x, 0)``; none of its
    weights is dead.
    """
    size, padding, groups = (1, 0, 1) if fusion in ("sum", "concat") else (3, 1, in_channels)
    conv = nn.Conv2d(
        in_channels,
        in_channels,
        size,
        padding=padding,
        groups=groups,
        bias=False,
        device=device,
        dtype=dtype,
    )
    return before_norm(norm, conv)


class SumFusion(nn.Module):
    """Dense 1x1 convolution of the sum, C^2 weights: ``W (p + c)``."""

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = bare_conv("sum", in_channels, norm, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)

    def split(self, c: Tensor) -> Split:
        return self.conv.weight, c, None


def zero_on_features_(conv: nn.Conv2d) -> None:
    """Sets the weights of a concatenation on its first half, the features, to zero."""
    nn.init.zeros_(conv.weight[:, : conv.out_channels])


class ConcatFusion(nn.Module):
    """Dense 1x1 convolution of the concatenation, 2 C^2 weights: ``W [p, c]``."""

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        conv = nn.Conv2d(2 * in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)
        self.conv = before_norm(norm, conv, zero_on_features_)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(torch.cat([p, c.expand_as(p)], 1))

    def split(self, c: Tensor) -> Split:
        on_p, on_c = self.conv.weight.chunk(2, 1)
        return on_p, None, F.conv2d(c, on_c)


class DepthwiseFusion(nn.Module):
    """Depthwise 3x3 convolution of the sum, 9 C weights: ``DW(p + c)``. Context passes through the
    sums of the kernels alone.
    """

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = bare_conv("depthwise", in_channels, norm, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)

    def split(self, c: Tensor) -> Split:
        return self.conv.weight, c, None


class ChannelScale(nn.Module):
    """One factor per channel: a depthwise 1x1 convolution, which starts like one."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -1, 1)

    def forward(self, c: Tensor) -> Tensor:
        return self.weight.view(-1, 1, 1) * c


class GroupedFusion(nn.Module):
    """Depthwise form of the concatenation, 10 C weights: ``DW(p) + k * c``.

    The context is constant over positions, so its kernel is one number per channel, and the borders
    see as much of it as the middle.
    """

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = bare_conv("grouped", in_channels, norm, device=device, dtype=dtype)
        self.context = ChannelScale(in_channels, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p) + self.context(c)

    def split(self, c: Tensor) -> Split:
        return self.conv.weight, None, self.context(c)


FUSIONS = {
    "sum": SumFusion,
    "concat": ConcatFusion,
    "depthwise": DepthwiseFusion,
    "grouped": GroupedFusion,
}
