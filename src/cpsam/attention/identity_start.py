"""How a new block starts as the identity: its residual branch ends in a layer that starts at zero.

The layer itself resets to zero. So the start does not depend on the order in which tools that
create weights late (the meta device, FSDP, timm's ``init_weights``) call ``reset_parameters``. The
layer keeps torch's class, by which tracers and quantisers know it.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn

from cpsam.attention.arguments import check_choice

NORMS = ("batch", "none")
Layer = TypeVar("Layer", bound=nn.Module)


def zero_(layer: nn.Module) -> None:
    """Sets all parameters of a layer to zero."""
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


def starts_at_zero(layer: Layer, zero: Callable[[Layer], None] = zero_) -> Layer:
    """Sets a new layer to zero with `zero`, and makes each later reset end in the same zeros.
    Returns the layer.
    """
    zero(layer)
    layer.__dict__["reset_parameters"] = partial(reset_to_zero, layer, zero)
    return layer


def reset_to_zero(layer: Layer, zero: Callable[[Layer], None]) -> None:
    """Draws what torch draws, so that the random numbers of later layers stay the same, and then
    sets the layer to zero.
    """
    type(layer).reset_parameters(layer)  # pyrefly: ignore
    zero(layer)


def residual_norm(norm: str, in_channels: int, *, device=None, dtype=None) -> nn.Module:
    """Returns the end of a residual branch: ``"batch"``, a BatchNorm that starts at zero, or
    ``"none"``, nothing.

    Raises:
        ValueError: If `norm` is neither.
    """
    check_choice("norm", norm, NORMS)
    return (
        starts_at_zero(nn.BatchNorm2d(in_channels, device=device, dtype=dtype))
        if norm == "batch"
        else nn.Identity()
    )


def before_norm(
    norm: str, layer: nn.Conv2d, zero: Callable[[nn.Conv2d], None] = zero_
) -> nn.Conv2d:
    """Returns the layer in front of :func:`residual_norm`, which starts at zero where there is no
    norm.
    """
    return starts_at_zero(layer, zero) if norm == "none" else layer
