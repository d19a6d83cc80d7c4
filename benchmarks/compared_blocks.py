"""The blocks, shapes and number formats that `blocks.py` and `gpu.py` measure."""

import importlib
import sys
import warnings
from collections.abc import Callable
from functools import cache

import torch
from timm.layers import GlobalContext, NonLocalAttn
from torch import Tensor, nn

from cpsam.attention import ATTENTION
from cpsam.attention.fusion import FUSIONS

SHAPES = ((16, 256, 14, 14), (8, 512, 28, 28), (8, 256, 56, 56), (16, 1024, 14, 14))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def shape_name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@torch.no_grad()
def awaken(block: nn.Module) -> nn.Module:
    """Gives what starts at zero small random values, and returns the block.

    Larger values would make some softmax so sharp that denormal numbers decided the time.
    """
    for parameter in block.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    return block


class Bare(nn.Module):
    """Applies the fusing convolution, BatchNorm and the addition, as three torch layers."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        groups = 1 if kernel == 1 else channels
        self.conv = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x))


@cache
def blocks() -> dict[str, Callable[[int], nn.Module]]:
    """Returns name -> a callable from channels to a block: ours, peers' and the bare convolutions.

    The concatenation has the bare convolution of the sum, and the grouped form that of the
    depthwise one.
    """
    made: dict[str, Callable[[int], nn.Module]] = {}
    for name, cls in ATTENTION.items():
        if name == "cpsam":
            made |= {f"cpsam:{f}": lambda c, cls=cls, f=f: cls(c, fusion=f) for f in FUSIONS}
        elif name == "conv_control":
            made[name] = lambda c, cls=cls: cls(c, hidden_channels=max(8, c // 16))
        else:
            made[name] = cls
    made |= {
        "timm:NonLocalAttn": lambda c: NonLocalAttn(c, rd_ratio=1 / 2),
        "timm:GlobalContext": lambda c: GlobalContext(c, fuse_add=True, fuse_scale=False),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made["mmcv:NonLocal2d"] = importlib.import_module("mmcv.cnn.bricks").NonLocal2d
    except ImportError:
        print("mmcv is not installed: measured without it", file=sys.stderr)
    return made | {"bare:sum": lambda c: Bare(c, 1), "bare:depthwise": lambda c: Bare(c, 3)}
