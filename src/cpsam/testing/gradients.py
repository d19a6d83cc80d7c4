"""Laws of the gradients of a block, tried with random parameters."""

import torch
from torch import Tensor, nn

from cpsam.testing.case import CHANNELS, ODD_IMAGES, Case, noise, require, require_finite
from cpsam.testing.values import EXACT, special_images, without_chance

STEP = 1e-5  # of finite differences: smaller drowns in rounding, larger in curvature
DIFFERENCE = 1e-5
SINGLE = 1e-3  # of gradients in float32, against float64


def trainable(block: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter for name, parameter in block.named_parameters() if parameter.requires_grad
    }


def backward(
    case: Case, block: nn.Module, x: Tensor, upstream: Tensor, kind: str = "images"
) -> dict[str, Tensor]:
    """Returns the gradients of the input and of the parameters that require one."""
    tensors = {"the input": x, **trainable(block)} if x.requires_grad else trainable(block)
    torch.manual_seed(0)
    y = case.call(block, x, kind)
    gradients = torch.autograd.grad(y, list(tensors.values()), upstream, allow_unused=True)
    without = [name for name, gradient in zip(tensors, gradients, strict=True) if gradient is None]
    require(not without, f"no gradient for {', '.join(without)}")
    return dict(zip(tensors, gradients, strict=True))


def off_finite_differences(
    case: Case, size: tuple[int, ...], training: bool, each: bool, seed: int
) -> dict[str, float]:
    """Returns how far the gradients are from finite differences.

    It steps along a direction of each tensor, or of all at once.
    """
    block = without_chance(case.block(size[1]).train(training))
    x, upstream = noise(size, "gradient", seed).requires_grad_(True), noise(size, "weights", seed)
    tensors = {"the input": x, **trainable(block)}
    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    gradients = backward(case, block, x, upstream)

    def loss() -> Tensor:
        torch.manual_seed(0)
        for name, buffer in block.named_buffers():
            buffer.copy_(buffers[name])
        return (block(x) * upstream).sum()

    off = {}
    with torch.no_grad():
        rounding = 100 * torch.finfo(x.dtype).eps * (block(x) * upstream).abs().sum() / STEP
        groups = (
            {name: [name] for name in tensors} if each else {"input and parameters": list(tensors)}
        )
        for what, names in groups.items():
            along = {name: noise(tuple(tensors[name].shape), "along", name, seed) for name in names}
            sides = []
            for step in (STEP, -2 * STEP, STEP):  # there, to the other side, and back
                for name in names:
                    tensors[name] += step * along[name]
                sides.append(loss())
            numeric = (sides[0] - sides[1]) / (2 * STEP)
            analytic = torch.stack([(gradients[name] * along[name]).sum() for name in names]).sum()
            scale = torch.stack(
                [gradients[name].norm() * along[name].norm() for name in names]
            ).sum()
            off[what] = (((numeric - analytic).abs() - rounding).relu() / (scale + rounding)).item()
    return off


def require_finite_differences(
    case: Case, size: tuple[int, ...], training: bool, each: bool
) -> None:
    """Tries other numbers before it complains, because a step may cross a maximum."""
    mode = "training" if training else "eval"
    for seed in range(3):
        wrong = {
            name: off
            for name, off in off_finite_differences(case, size, training, each, seed).items()
            if not off <= DIFFERENCE
        }
        if not wrong:
            return
    name, off = next(iter(wrong.items()))
    require(
        False,
        f"images of {size}, {mode} mode: the gradient of {name} is off by {off:.1e} of its size"
        f" from finite differences; {DIFFERENCE:.0e} is allowed",
    )


def require_same(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, what: str
) -> None:
    """Compares gradients as shares of the largest one, because some are zero but for rounding."""
    scale = max(gradient.norm() for gradient in expected.values())
    for name, gradient in actual.items():
        off = (
            (gradient.double() - expected[name]).norm() / (expected[name].norm() + 1e-2 * scale)
        ).item()
        require(
            off <= tolerance,
            f"the gradient of {name} {what} is off by {off:.1e} of its size; {tolerance:.0e} is"
            " allowed",
        )


def require_same_whatever_is_asked(case: Case) -> None:
    """Compares the gradients for other strides of the upstream gradient and for frozen tensors."""
    size = (2, CHANNELS, 4, 3)
    block, x, upstream = (
        case.block(),
        noise(size, "gradient"),
        noise((2, CHANNELS, 1, 1), "weights").expand(size),
    )
    leaf = x.clone().requires_grad_(True)
    expected = backward(case, block, leaf, upstream.contiguous())
    last = upstream.contiguous(memory_format=torch.channels_last)
    for given, what in ((upstream, "an expanded"), (last, "a channels-last")):
        require_same(
            backward(case, block, leaf, given), expected, EXACT, f"for {what} upstream gradient"
        )
    require(torch.equal(last, upstream), "the backward pass moves the gradient that it is given")
    require_same(backward(case, block, x, upstream), expected, EXACT, "where the input needs none")
    require_same(
        backward(case, block.requires_grad_(False), leaf, upstream),
        expected,
        EXACT,
        "where the parameters are frozen",
    )


def gradient(case: Case) -> None:
    """Gradients are those of finite differences in both modes, finite on constant and dead images,
    and no parameter goes without.
    """
    require_finite_differences(case, (2, CHANNELS, 4, 3), training=False, each=True)
    require_finite_differences(case, case.sized(*ODD_IMAGES), training=False, each=False)
    require_finite_differences(case, (1, CHANNELS, 15, 16), training=False, each=False)
    require_finite_differences(case, (3, CHANNELS, 4, 5), training=True, each=False)
    require_same_whatever_is_asked(case)
    for training in (False, True):
        block, mode = (
            case.block(dtype=torch.float32).train(training),
            "training" if training else "eval",
        )
        for kind, x in (
            *special_images((5, CHANNELS, 4, 3)),
            ("images", noise((5, CHANNELS, 1, 1), "gradient")),
        ):
            upstream = noise(tuple(x.shape), "weights", dtype=torch.float32)
            for name, found in backward(
                case, block, x.float().requires_grad_(True), upstream, kind
            ).items():
                require_finite(
                    found, f"the gradient of {name} for {kind} of {tuple(x.shape)}, {mode} mode"
                )
    size = (3, CHANNELS, 4, 5)
    single, double = (
        without_chance(case.block(dtype=torch.float32).to(dtype).train())
        for dtype in (torch.float32, torch.float64)
    )
    x, upstream = (
        noise(size, "gradient", dtype=torch.float32),
        noise(size, "weights", dtype=torch.float32),
    )
    expected = backward(case, double, x.double().requires_grad_(True), upstream.double())
    found = backward(case, single, x.requires_grad_(True), upstream)
    require_same(
        found, expected, SINGLE, f"for images of {size}, training mode, in float32 against float64"
    )
