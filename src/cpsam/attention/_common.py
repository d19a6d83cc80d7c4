"""What all blocks share: checks of arguments, the width of a bottleneck, and the start as identity.

A new block is the identity, because its residual branch ends in a layer that starts at zero. The
layer itself resets to zero. So the start does not depend on the order in which tools that create
weights late (the meta device, FSDP, timm's ``init_weights``) call ``reset_parameters``. The layer
keeps torch's class, by which tracers and quantisers know it.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from typing import TypeVar

from torch import nn

MOST = 2**16  # no network is wider, and a typing error must not take all memory
NORMS = ("batch", "none")
Layer = TypeVar("Layer", bound=nn.Module)


def check_at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1; got {number!r}")
        if number > MOST:
            raise ValueError(f"{name} must be at most {MOST:,}; got {number:,}")


def check_choice(name: str, given: str, choices: Iterable[str]) -> None:
    if given not in (names := sorted(choices)):
        near = get_close_matches(str(given), names, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(names)}; got {given!r}{hint}")


def hidden_channels(in_channels: int, reduction: int) -> int:
    """Returns the width of a bottleneck, ``max(8, in_channels // reduction)``.

    It is never below 8, because a layer norm over one or two values returns constants. With a
    reduction of 16 on 32 channels a block could not learn.

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1.
    """
    check_at_least_one(in_channels=in_channels, reduction=reduction)
    return max(8, in_channels // reduction)


def zero_(layer: nn.Module) -> None:
    """Sets all parameters of a layer to zero."""
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


def starts_at_zero(layer: Layer, zero: Callable[[Layer], None] = zero_) -> Layer:
    """Sets a new layer to zero, makes each later reset end in the same zeros, and returns it."""
    zero(layer)
    layer.__dict__["reset_parameters"] = partial(reset_to_zero, layer, zero)
    return layer


def reset_to_zero(layer: Layer, zero: Callable[[Layer], None]) -> None:
    """Draws what torch draws, so that later layers get the same random numbers, then sets zeros."""
    type(layer).reset_parameters(layer)  # pyrefly: ignore
    zero(layer)


def residual_norm(norm: str, in_channels: int, *, device=None, dtype=None) -> nn.Module:
    """Returns the end of a residual branch: a BatchNorm that starts at zero, or an Identity.

    Args:
        norm: ``"batch"`` or ``"none"``.

    Raises:
        ValueError: If `norm` is neither.
    """
    check_choice("norm", norm, NORMS)
    if norm == "none":
        return nn.Identity()
    return starts_at_zero(nn.BatchNorm2d(in_channels, device=device, dtype=dtype))


def before_norm(
    norm: str, layer: nn.Conv2d, zero: Callable[[nn.Conv2d], None] = zero_
) -> nn.Conv2d:
    """Returns the layer before :func:`residual_norm`; without a norm this layer starts at zero."""
    return starts_at_zero(layer, zero) if norm == "none" else layer
