"""What a law is tried on: one configuration of a block class, and how two tensors are compared."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.seeds import derive_seed

# No two sizes of an image are equal, so that swapped axes show; 24 channels divide by most numbers
# of heads.
CHANNELS = 24
IMAGES = (2, CHANNELS, 5, 7)
ODD_CHANNELS = 23
ODD_IMAGES = (2, ODD_CHANNELS, 3, 5)  # wide, where other laws also take a tall map
FIVE_SHAPES = (
    IMAGES,
    (3, CHANNELS, 7, 4),
    (4, CHANNELS, 6, 11),
    (6, CHANNELS, 3, 8),
    (7, CHANNELS, 9, 3),
)

Configuration = Mapping[str, Any]
Reference = Callable[[nn.Module, Tensor], Tensor]


class BrokenLaw(AssertionError):
    """Says which laws a block breaks: one line with the name, the law and what was seen.

    Attributes:
        laws: What was seen of each broken law, by name.
    """

    def __init__(self, broken: Mapping[str, tuple[str, str]]) -> None:
        self.laws = {name: seen for name, (_, seen) in broken.items()}
        super().__init__(
            "\n".join(
                f"{name!r} is broken. {statement} {seen}"
                for name, (statement, seen) in broken.items()
            )
        )


class Violation(AssertionError):
    """What a law has against a block."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def told(error: Exception) -> str:
    return f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def trying(what: str) -> Iterator[None]:
    """Says of an error that is raised within where it was raised."""
    try:
        yield
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{what} {told(error)}") from error


def require_finite(tensor: Tensor, what: str) -> None:
    if not tensor.is_meta:
        lost = tensor.numel() - int(tensor.isfinite().sum())
        require(lost == 0, f"{what}: {lost} of {tensor.numel()} values are not finite")


def gap(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference as a fraction of the largest expected value.

    It is infinite where a value is not a number.
    """
    difference = (actual.double() - expected.double()).abs().max()
    scale = expected.double().abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return (difference / scale).nan_to_num(nan=float("inf")).item()


def require_close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    require(
        actual.shape == expected.shape,
        f"{what}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}",
    )
    require(
        (off := gap(actual, expected)) <= tolerance,
        f"{what}: off by {off:.1e} of the largest value, where {tolerance:.0e} is rounding",
    )


def noise(
    shape: tuple[int, ...], *purpose: int | str, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Returns standard normal images, the same for the same purpose."""
    source = torch.Generator().manual_seed(derive_seed(0, "noise", *purpose))
    return torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fills all parameters and buffers of a module with random numbers, in place.

    A new block may do nothing, so most laws are tried after this.

    Weights with a fan-in keep the scale of their input; the others are between 0.5 and 1.5 in size,
    of either sign. Floating-point buffers are between 0.5 and 1.5, because a variance must be
    positive. Integers stay, and so do buffers outside the state dict, which are constants.

    Args:
        module: Any module.
        seed: Of the numbers, at least 0. The same seed gives modules of one structure the same
            numbers.

    Returns:
        The module.

    Example:
        >>> block = randomise(nn.BatchNorm2d(8))
        >>> bool((block.weight.abs() >= 0.5).all())
        True
    """
    source = torch.Generator().manual_seed(derive_seed(seed, "randomise"))
    for tensor in module.parameters():
        if tensor.dim() > 1:
            values = (
                torch.randn(tensor.shape, generator=source, dtype=torch.float64)
                / tensor[0].numel() ** 0.5
            )
        else:
            values = (0.5 + torch.rand(tensor.shape, generator=source)) * (
                1 - 2 * torch.randint(2, tensor.shape, generator=source)
            )
        tensor.copy_(values)
    for child in module.modules():
        for name, tensor in child.named_buffers(recurse=False):
            if tensor.is_floating_point() and name not in child._non_persistent_buffers_set:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source))
    return module


@dataclass(frozen=True)
class Case:
    """One configuration of a class under test.

    Attributes:
        arguments: Of the constructor, in this configuration.
        configurations: All configurations that are tried.
        exports: The exported programs, by configuration, for the laws that need the same one.
    """

    cls: Callable[..., nn.Module]
    arguments: Configuration
    configurations: tuple[Configuration, ...]
    reference: Reference | None = None
    parameters: Callable[..., int] | None = None
    macs: Callable[..., int] | None = None
    identity: bool = True
    channels_multiple_of: int = 1
    exports: dict[str, torch.export.ExportedProgram] = field(default_factory=dict)

    def __str__(self) -> str:
        name = getattr(self.cls, "__name__", repr(self.cls))
        given = [str(CHANNELS), *(f"{key}={value!r}" for key, value in self.arguments.items())]
        return f"{name}({', '.join(given)})"

    def sized(self, *size: int) -> tuple[int, ...]:
        """Returns the shape (N, C, H, W) with C rounded up to a number that the class takes."""
        images, channels, *map_size = size
        return (
            images,
            -(-channels // self.channels_multiple_of) * self.channels_multiple_of,
            *map_size,
        )

    def new(self, in_channels: int = CHANNELS, **more: Any) -> nn.Module:
        """Returns a block as its constructor makes it, in training mode."""
        torch.manual_seed(0)  # inside the fork of `check_attention`
        with trying(f"the constructor at {in_channels} channels"):
            return self.cls(in_channels, **self.arguments, **more)

    def block(self, in_channels: int = CHANNELS, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Returns a block with random parameters and buffers, in eval mode."""
        return randomise(self.new(in_channels)).to(dtype).eval()

    def call(self, block: nn.Module, x: Tensor, kind: str = "images") -> Tensor:
        """Returns the output, which must be finite and have the shape, dtype and device of `x`."""
        what = (
            f"{kind} of {tuple(x.shape)}, {str(x.dtype).removeprefix('torch.')},"
            f" {'training' if block.training else 'eval'} mode:"
        )
        with trying(what):
            y = block(x)
        require(isinstance(y, Tensor), f"{what} returned a {type(y).__name__}, not one tensor")
        require(y.shape == x.shape, f"{what} returned the shape {tuple(y.shape)}")
        require(
            y.dtype == x.dtype and y.device == x.device,
            f"{what} returned {y.dtype} on {y.device}, not {x.dtype} on {x.device}",
        )
        require_finite(y, what.removesuffix(":"))
        return y

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Returns the output, which must also differ from `x`: a block must do something."""
        before = x.detach().clone()
        y = self.call(block, x)
        require(
            gap(y.detach(), before) > 1e-6,
            "does nothing: with random parameters the output equals the input",
        )
        return y
