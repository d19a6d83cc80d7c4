"""Laws of what a block computes, at every size and in every precision."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cpsam.testing.case import (
    CHANNELS,
    FIVE_SHAPES,
    IMAGES,
    ODD_CHANNELS,
    ODD_IMAGES,
    Case,
    noise,
    randomise,
    require,
    require_close,
)

EXACT = 1e-9  # of a block in float64

WIDTHS = (1, 2, 3, 5, 6, 7, 12, 20, 36, 63, 65, 100, 130, 258)
# large sizes need neither memory nor arithmetic there
META_SIZES = ((2, 515, 5, 7), (2, 2050, 5, 7), (1, CHANNELS, 65, 200))
SIZES = (
    *FIVE_SHAPES,
    (1, CHANNELS, 6, 11),
    (1, CHANNELS, 17, 30),
    (70, CHANNELS, 2, 3),
    (2, 40, 9, 3),
    (1, 65, 3, 5),
    ODD_IMAGES,
)
SMALLEST_SIZES = (
    (5, CHANNELS, 1, 1),
    (1, CHANNELS, 1, 1),
    (3, CHANNELS, 1, 4),
    (3, CHANNELS, 4, 1),
    (2, 1, 5, 7),
    (1, 1, 1, 1),
)


def used(case: Case, channels: int) -> tuple[set[int], set[int]]:
    """Returns the channels that the block moves, and those that change what it adds.

    It takes the best of a few random blocks.
    """
    moved, read = set[int](), set[int]()
    for seed in range(4):
        block = randomise(case.new(channels), seed).double().eval()
        x = noise((2, channels, 5, 7), "used", seed).requires_grad_(True)
        added = case.call(block, 1 * x) - x  # not the leaf, which must not be written to
        (gradient,) = torch.autograd.grad((added * noise(tuple(x.shape), "weights")).sum(), x)
        moved |= set(added.detach().abs().amax((0, 2, 3)).gt(1e-9).nonzero().flatten().tolist())
        read |= set(gradient.abs().amax((0, 2, 3)).gt(1e-9).nonzero().flatten().tolist())
        if len(moved) == len(read) == channels:
            break
    return moved, read


def shape(case: Case) -> None:
    """Shape, dtype and device stay and values are finite at any number of images, channels (none is
    lost), rows and columns.
    """
    for channels in (case.sized(1, width)[1] for width in WIDTHS):
        block = case.new(channels)
        empty = [name for name, parameter in block.named_parameters() if not parameter.numel()]
        require(not empty, f"at {channels} channels {', '.join(empty)} has no elements")
        case.call(block, noise((2, channels, 3, 5), "shape", dtype=torch.float32))
    for size in (case.sized(*size) for size in META_SIZES):
        case.call(case.new(size[1], device="meta").eval(), torch.empty(size, device="meta"))
    case.call(
        case.new().eval().to("meta"),
        torch.empty(IMAGES, device="meta"),
        "a block moved to meta: images",
    )
    with torch.no_grad():
        case.run(case.block(), noise(IMAGES, "shape"))
        sizes = [case.sized(*size) for size in (*SIZES, *SMALLEST_SIZES)]
        blocks = {
            channels: case.block(channels, torch.float32)
            for channels in {size[1] for size in sizes}
        }
        for index, size in enumerate(sizes):
            x = noise(size, "shape", dtype=torch.float32)
            case.run(blocks[size[1]], x) if index < len(SIZES) else case.call(blocks[size[1]], x)
    everywhere = [len(channels) == CHANNELS for channels in used(case, CHANNELS)]
    for channels in (case.sized(1, width)[1] for width in (ODD_CHANNELS, 40)):
        for all_at_24, found, what in zip(
            everywhere, used(case, channels), ("leaves alone", "does not read"), strict=True
        ):
            lost = sorted(set(range(channels)) - found)
            require(
                not (all_at_24 and lost),
                f"at {channels} channels it {what} channels {lost[:3]}, at {CHANNELS} none",
            )


@torch.no_grad()
def reference(case: Case) -> None:
    """The output is the one of the definition, in float64."""
    if case.reference is None:
        return
    for size in (
        IMAGES,
        (1, CHANNELS, 4, 3),
        case.sized(1, 7, 2, 17),
        case.sized(1, 3, 16, 3),
        case.sized(1, ODD_CHANNELS, 2, 3),
    ):
        block, x = case.block(size[1]), noise(size, "reference")
        require_close(
            case.run(block, x), case.reference(block, x), EXACT, f"the definition, at {size}"
        )


def root_mean_square(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def without_chance(block: nn.Module) -> nn.Module:
    """Puts the dropout layers of a block in eval mode."""
    for module in block.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    return block


def precision(case: Case) -> None:
    """In bfloat16 and float16, and under their autocast, the output keeps its dtype and is close to
    float64, in both modes.
    """
    for dtype, autocast, tolerance in (
        (torch.float32, None, 1e-5),
        (torch.float16, None, 2e-2),
        (torch.bfloat16, None, 6e-2),
        (torch.float32, torch.float16, 2e-2),
        (torch.float32, torch.bfloat16, 6e-2),
    ):
        for training in (False, True):
            block, x = (
                without_chance(case.block(dtype=dtype).train(training)),
                noise(IMAGES, "precision", dtype=dtype),
            )
            under = f"{dtype} under autocast to {autocast}" if autocast else f"{dtype}"
            with (
                torch.set_grad_enabled(training),
                torch.autocast("cpu", autocast, enabled=autocast is not None),
            ):
                torch.manual_seed(0)
                y = case.run(block, x)
            with torch.no_grad():
                # the same rounded parameters
                block = without_chance(case.block(dtype=dtype).double().train(training))
                torch.manual_seed(0)
                expected = block(x.double())
                off = root_mean_square(y.double() - expected) / root_mean_square(expected)
            mode = "training" if training else "eval"
            require(
                off <= tolerance,
                f"{under} is off by {off:.1e} of float64 in root mean square in {mode} mode;"
                f" {tolerance:.0e} is allowed",
            )


def special_images(size: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yields images of ordinary size on which a division or a root may fail."""
    x = noise(size, "special")
    yield "constant images", torch.full_like(x, 0.7)
    yield "images of constant channels", x[:, :, :1, :1].expand(size).contiguous()
    yield "images of zeros", torch.zeros_like(x)
    yield "images with dead channels", x.relu() * (torch.arange(size[1]) % 2).view(-1, 1, 1)
    yield "tiny images", 1e-4 * x


def require_finite_output(case: Case, x: Tensor, kind: str) -> None:
    """Requires finite numbers where those of float64 are well inside the range of the dtype."""
    block = case.block(dtype=x.dtype)
    y = block(x)
    lost = y.numel() - int(y.isfinite().sum())
    if lost:
        exact = block.double()(x.double())
        hopeless = (
            bool(exact.isfinite().all())
            and exact.abs().max().item() > torch.finfo(x.dtype).max / 16
        )
        require(
            hopeless,
            f"{kind} of {tuple(x.shape)}: {lost} of {y.numel()} values are not finite in {x.dtype}",
        )


@torch.no_grad()
def large_inputs(case: Case) -> None:
    """Large images, 1e4 in float32 and bfloat16 and 1e1 in float16 up to 56x56, constant and dead
    ones give finite numbers.
    """
    size = (2, CHANNELS, 9, 11)
    for dtype, scale in ((torch.float32, 1e4), (torch.bfloat16, 1e4), (torch.float16, 1e1)):
        for kind, x in (
            (f"images of scale {scale:.0e}", noise(size, "large") * scale),
            *special_images(size),
        ):
            require_finite_output(case, x.to(dtype), kind)
    require_finite_output(
        case, 10 * (noise((1, CHANNELS, 56, 56), "large").abs() + 2).half(), "images of mean 28"
    )
