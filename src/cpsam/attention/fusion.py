"""The fusing convolution F(p, c) of CPSAM, in the four readings that the abstract leaves open.

`p` are gated features, (N, C, H, W), and `c` is a context that is the same at every position,
(N, C, 1, 1). No reading has a bias, because a norm follows. Without a norm, the weights on p start
at zero. The weights on c do not, because the context itself starts at zero: of two factors that are
zero, neither would ever learn.

`parts` writes ``F(p, c)`` as ``conv(p + before, weight) + after``, so that c is never broadcast.
Before and after are (N, C, 1, 1) or None.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpsam.attention._common import before_norm

Parts = tuple[Tensor, Tensor | None, Tensor | None]


def bare_conv(fusion: str, in_channels: int, norm: str, *, device=None, dtype=None) -> nn.Conv2d:
    """Returns the convolution that remains of a fusion without context, ``F(x, 0)``."""
    factory = {"bias": False, "device": device, "dtype": dtype}
    if fusion in ("sum", "concat"):
        conv = nn.Conv2d(in_channels, in_channels, 1, **factory)
    else:
        conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, **factory)
    return before_norm(norm, conv)


class SumFusion(nn.Module):
    """Applies a dense 1x1 convolution to the sum, ``W (p + c)``, with C^2 weights."""

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = bare_conv("sum", in_channels, norm, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)

    def parts(self, c: Tensor) -> Parts:
        return self.conv.weight, c, None


def zero_on_features_(conv: nn.Conv2d) -> None:
    """Sets the weights of a concatenation on its first half, the features, to zero."""
    nn.init.zeros_(conv.weight[:, : conv.out_channels])


class ConcatFusion(nn.Module):
    """Applies a dense 1x1 convolution to the concatenation, ``W [p, c]``, with 2 C^2 weights."""

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        conv = nn.Conv2d(2 * in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)
        self.conv = before_norm(norm, conv, zero_on_features_)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(torch.cat([p, c.expand_as(p)], 1))

    def parts(self, c: Tensor) -> Parts:
        on_p, on_c = self.conv.weight.chunk(2, 1)
        return on_p, None, F.conv2d(c, on_c)


class DepthwiseFusion(nn.Module):
    """Applies a depthwise 3x3 convolution to the sum, ``DW(p + c)``, with 9 C weights.

    The context, which is constant, reaches the output only through the sum of each kernel.
    """

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = bare_conv("depthwise", in_channels, norm, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)

    def parts(self, c: Tensor) -> Parts:
        return self.conv.weight, c, None


class ChannelScale(nn.Module):
    """Multiplies by one factor per channel: a depthwise 1x1 convolution, which starts like one."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -1, 1)

    def forward(self, c: Tensor) -> Tensor:
        return self.weight.view(-1, 1, 1) * c


class GroupedFusion(nn.Module):
    """Applies the depthwise form of the concatenation, ``DW(p) + k * c``, with 10 C weights.

    The context is constant over positions, so its kernel is one number per channel. The borders
    get as much of it as the middle.
    """

    def __init__(self, in_channels: int, *, norm: str, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = bare_conv("grouped", in_channels, norm, device=device, dtype=dtype)
        self.context = ChannelScale(in_channels, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p) + self.context(c)

    def parts(self, c: Tensor) -> Parts:
        return self.conv.weight, None, self.context(c)


FUSIONS = {
    "sum": SumFusion,
    "concat": ConcatFusion,
    "depthwise": DepthwiseFusion,
    "grouped": GroupedFusion,
}
