"""The fusing convolution F(p, c) of CPSAM, in the four readings that the abstract leaves open.

`p` are re-weighted features, (N, C, H, W), and `c` is a context that is the same at every position, (N, C, 1, 1). No reading has a bias: a
norm follows.
"""

import torch
from torch import Tensor, nn

from cpsam.attention.identity_start import start_at_zero


class SumFusion(nn.Module):
    """Dense 1x1 convolution of the sum, C^2 weights: ``W (p + c)``."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)


class ConcatFusion(nn.Module):
    """Dense 1x1 convolution of the concatenation, 2 C^2 weights: ``W [p, c]``."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * in_channels, in_channels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(torch.cat([p, c.expand_as(p)], 1))


class DepthwiseFusion(nn.Module):
    """Depthwise 3x3 convolution of the sum, 9 C weights: ``DW(p + c)``. Context passes through the sums of the kernels alone."""

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p + c)


class GroupedFusion(nn.Module):
    """Depthwise form of the concatenation, 10 C weights: ``DW(p) + k * c``.

    The context is constant over positions, so its kernel is one number a channel, and the borders see as much of it as the middle.
    """

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, device=device, dtype=dtype)
        self.context = nn.Conv2d(in_channels, in_channels, 1, groups=in_channels, bias=False, device=device, dtype=dtype)

    def forward(self, p: Tensor, c: Tensor) -> Tensor:
        return self.conv(p) + self.context(c)


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
