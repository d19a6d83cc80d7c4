"""How a new block starts as the identity: its residual branch ends in a layer that is zero."""

from torch import nn

from cpsam.attention.arguments import check_choice

NORMS = ("batch", "none")


def zero_(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def residual_norm(norm: str, in_channels: int, *, device=None, dtype=None) -> nn.Module:
    """The end of a residual branch: ``"batch"``, a BatchNorm, or ``"none"``, nothing.

    Raises:
        ValueError: If `norm` is neither.
    """
    check_choice("norm", norm, NORMS)
    return nn.BatchNorm2d(in_channels, device=device, dtype=dtype) if norm == "batch" else nn.Identity()


def start_at_zero(batch_norm: nn.Module, last_layer: nn.Module) -> None:
    """Make ``batch_norm(last_layer(...))`` zero for every input: by the norm, or, where there is none, by the layer before it."""
    zero_(batch_norm if isinstance(batch_norm, nn.BatchNorm2d) else last_layer)
