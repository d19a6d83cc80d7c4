"""The fusing convolution F(p, c) of CPSAM, in the four readings that the abstract leaves open.

`p` are re-weighted features, (N, C, H, W), and `c` is a context that is the same at every position, (N, C, 1, 1). No reading has a bias: a
norm follows.

`split` writes ``F(p, c)`` as ``conv(p + before, weight) + after``, before and after being (N, C, 1, 1) or None: c is never broadcast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpsam.attention.identity_start import start_at_zero

Split = tuple[Tensor, Tensor | None, Tensor | None]


class SumFusion(nn.Module):
    """Dense 1x1 convolution of the sum, C^2 weights: ``W (p + c)``."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)

    def split(self, c: Tensor) -> Split:
        return self.conv.weight, c, None


class ConcatFusion(nn.Module):
    """Dense 1x1 convolution of the concatenation, 2 C^2 weights: ``W [p, c]``."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(torch.cat([p, c.expand_as(p)], 1))

    def split(self, c: Tensor) -> Split:
        on_p, on_c = self.conv.weight.chunk(2, 1)
        return on_p, None, F.conv2d(c, on_c)


class DepthwiseFusion(nn.Module):
    """Depthwise 3x3 convolution of the sum, 9 C weights: ``DW(p + c)``. Context passes through the sums of the kernels alone."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)

    def split(self, c: Tensor) -> Split:
        return self.conv.weight, c, None


class ChannelScale(nn.Module):
    """One factor a channel: a depthwise 1x1 convolution, and started like one."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        nn.init.uniform_(self.weight, -1, 1)

    def forward(self, c: Tensor) -> Tensor:
        return self.weight.view(-1, 1, 1) * c


class GroupedFusion(nn.Module):
    """Depthwise form of the concatenation, 10 C weights: ``DW(p) + k * c``.

    The context is constant over positions, so its kernel is one number a channel, and the borders see as much of it as the middle.
    """

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, device=device, dtype=dtype)
        self.context = ChannelScale(in_channels, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p) + self.context(c)

    def split(self, c: Tensor) -> Split:
        return self.conv.weight, None, self.context(c)


FUSIONS = {"sum": SumFusion, "concat": ConcatFusion, "depthwise": DepthwiseFusion, "grouped": GroupedFusion}


def bare_conv(fusion: str, in_channels: int, *, device=None, dtype=None) -> nn.Conv2d:
    """The convolution that is left of a fusion when it is given no context, ``F(x, 0)``; no weight of it is dead."""
    if fusion in ("sum", "concat"):
        return nn.Conv2d(in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)
    return nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, device=device, dtype=dtype)


@torch.no_grad()
def start_fusion_at_zero(batch_norm: nn.Module, fuse: nn.Module) -> None:
    """Make ``batch_norm(F(p, 0))`` zero for every p.

    Without a norm only the weights on p are zeroed: the context starts at zero itself, and of two factors at zero neither would ever learn.
    """
    if isinstance(batch_norm, nn.BatchNorm2d):
        start_at_zero(batch_norm, fuse)
    else:
        assert isinstance(fuse.conv, nn.Conv2d)
        fuse.conv.weight[:, : fuse.conv.out_channels] = 0
