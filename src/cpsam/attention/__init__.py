"""The blocks, one per file, and ``ATTENTION``, which maps each name to its class."""

import inspect
from typing import Any

from torch import nn

from cpsam.attention.bam import BAM
from cpsam.attention.bare_fusion import BareFusion
from cpsam.attention.cbam import CBAM
from cpsam.attention.channel_squeeze import ChannelSqueezeAttention
from cpsam.attention.constant_gate import ConstantGate
from cpsam.attention.conv_control import ConvControl
from cpsam.attention.cpsam import CPSAM
from cpsam.attention.danet_channel import DANetChannel
from cpsam.attention.eca import ECA
from cpsam.attention.global_context import GlobalContext
from cpsam.attention.non_local import NonLocal
from cpsam.attention.norm_only import NormOnly
from cpsam.attention.position_squeeze import PositionSqueezeAttention
from cpsam.attention.simplified_non_local import SimplifiedNonLocal
from cpsam.attention.squeeze_excite import SqueezeExcite

ATTENTION: dict[str, type[nn.Module]] = {
    "cpsam": CPSAM,
    "non_local": NonLocal,
    "simplified_non_local": SimplifiedNonLocal,
    "global_context": GlobalContext,
    "squeeze_excite": SqueezeExcite,
    "cbam": CBAM,
    "eca": ECA,
    "bam": BAM,
    "danet_channel": DANetChannel,
    "norm_only": NormOnly,
    "bare_fusion": BareFusion,
    "constant_gate": ConstantGate,
    "conv_control": ConvControl,
}

CONTROLS = frozenset({"norm_only", "bare_fusion", "constant_gate", "conv_control"})

# Multiplicative gates change the features when they are new; all other blocks start as identity.
NOT_IDENTITY_AT_START = frozenset({"squeeze_excite", "cbam", "eca", "bam"})


def argument_names(block: type[nn.Module]) -> tuple[str, ...]:
    """Returns the constructor arguments of a block class without `device` and `dtype`."""
    names = inspect.signature(block).parameters
    return tuple(name for name in names if name not in ("device", "dtype"))


def block_arguments(block: nn.Module) -> dict[str, Any]:
    """Returns the arguments that build this block again; a block keeps each under its own name.

    Example:
        >>> block_arguments(GlobalContext(64, reduction=4))
        {'in_channels': 64, 'reduction': 4}
    """
    return {name: getattr(block, name) for name in argument_names(type(block))}


__all__ = [
    "ATTENTION",
    "BAM",
    "CBAM",
    "CONTROLS",
    "CPSAM",
    "ECA",
    "NOT_IDENTITY_AT_START",
    "BareFusion",
    "ChannelSqueezeAttention",
    "ConstantGate",
    "ConvControl",
    "DANetChannel",
    "GlobalContext",
    "NonLocal",
    "NormOnly",
    "PositionSqueezeAttention",
    "SimplifiedNonLocal",
    "SqueezeExcite",
    "argument_names",
    "block_arguments",
]
