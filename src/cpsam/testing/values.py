"""Laws of what a block computes, tried with random parameters."""

import torch
from torch import Tensor, nn

from cpsam.testing.case import CHANNELS, FIVE_SHAPES, IMAGES, Case, gap, noise, require, require_close

EXACT = 1e-9  # of a block in float64
STEP = 1e-5  # of finite differences: smaller drowns in rounding, larger in curvature


@torch.no_grad()
def shape(case: Case) -> None:
    """Shape, dtype and device are kept at any number of images, channels, rows and columns, 1x1 included."""
    for size in (*FIVE_SHAPES, (1, CHANNELS, 6, 11), (5, CHANNELS, 1, 1), (3, CHANNELS, 1, 4), (2, 40, 9, 3)):
        for dtype in (torch.float32, torch.float64):
            y = case.run(case.block(size[1], dtype), noise(size, "shape", dtype=dtype))
            require(y.dtype == dtype, f"returned {y.dtype} for {dtype}")
    y = case.new(device="meta").eval()(torch.empty(IMAGES, device="meta"))
    require(y.shape == IMAGES and y.device.type == "meta", f"returned the shape {tuple(y.shape)} on {y.device} for {IMAGES} on meta")


@torch.no_grad()
def memory(case: Case) -> None:
    """Strides of the input change no value, and channels-last images come back channels-last."""
    block, x = case.block(), noise(IMAGES, "memory")
    expected = case.run(block, x)
    require(expected.is_contiguous(), f"contiguous images come back with strides {expected.stride()}")
    last = block(x.contiguous(memory_format=torch.channels_last))
    require(last.is_contiguous(memory_format=torch.channels_last), f"channels-last images come back with strides {last.stride()}")
    require_close(last, expected, EXACT, "channels-last against contiguous")
    spread = noise((2, 2 * CHANNELS, 9, 8))
    spread[:, ::2, 2:7, 1:] = x
    require_close(block(spread[:, ::2, 2:7, 1:]), expected, EXACT, "a slice against contiguous")
    require_close(block(x.transpose(2, 3).contiguous().transpose(2, 3)), expected, EXACT, "transposed memory against contiguous")


@torch.no_grad()
def untouched(case: Case) -> None:
    """A forward leaves its input as it was, in both modes."""
    x = noise(IMAGES, "untouched")
    before = x.clone()
    for training in (False, True):
        case.run(case.block().train(training), x)
        require(torch.equal(x, before), f"moved its input by {gap(x, before):.1e} of it with training={training}")


@torch.no_grad()
def repeatable(case: Case) -> None:
    """In eval mode two calls with the same images give the same bits, whatever was seen between them."""
    block, x = case.block(), noise(IMAGES, "repeatable")
    first = case.run(block, x)
    require(torch.equal(first, block(x)), f"a second call is off by {gap(block(x), first):.1e}")
    for images in (noise(IMAGES, "other"), noise((3, CHANNELS, 8, 3), "larger")):
        require_close(block(images), case.block()(images), EXACT, "a block that saw other images before, against one that did not")
    require(torch.equal(first, block(x)), f"after other images the same call is off by {gap(block(x), first):.1e}")


@torch.no_grad()
def batch(case: Case) -> None:
    """Samples of a batch do not influence each other in eval mode."""
    block, x = case.block(), noise((3, *IMAGES[1:]), "batch")
    expected = case.run(block, x)
    changed = torch.cat([x[:1], 3 * noise((2, *IMAGES[1:]), "changed") + 1])
    require_close(block(changed)[:1], expected[:1], EXACT, "the first image when the others change")
    require_close(block(x[1:2]), expected[1:2], EXACT, "an image alone against the same in a batch")


@torch.no_grad()
def modes(case: Case) -> None:
    """Training changes what the innermost layers do (norms, dropout) and nothing else; statistics move in training alone."""
    block, x = case.block(), noise(IMAGES, "modes")
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    expected = case.run(block, x)
    moved = [name for name, tensor in block.state_dict().items() if not torch.equal(tensor, before[name])]
    require(not moved, f"a forward in eval mode moves {', '.join(moved)}")
    for module in block.modules():
        module.training = module is block or any(True for _ in module.children())
    require_close(block(x), expected, EXACT, "the block in training mode with its layers in eval mode, against eval mode")
    case.run(block.train(), x)
    norms = [f"{name}.running_mean" for name, module in block.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    stuck = [name for name in norms if name in before and torch.equal(block.state_dict()[name], before[name])]
    require(not stuck, f"training does not move {', '.join(stuck)}")


@torch.no_grad()
def reference(case: Case) -> None:
    """The output is the one of the definition, in float64."""
    if case.reference is None:
        return
    for size in ((2, CHANNELS, 5, 7), (1, CHANNELS, 4, 3)):
        block, x = case.block(), noise(size, "reference")
        require_close(case.run(block, x), case.reference(block, x), EXACT, f"the definition, at {size}")


def gradient(case: Case) -> None:
    """Gradients of input and parameters are those of finite differences, and no parameter goes without."""
    block, x = case.block(), noise((2, CHANNELS, 4, 3), "gradient").requires_grad_(True)
    weights = noise(tuple(x.shape), "weights")
    terms = case.run(block, x) * weights
    terms.sum().backward()
    rounding = 100 * torch.finfo(x.dtype).eps * terms.detach().abs().sum() / STEP
    tensors = {"the input": x, **dict(block.named_parameters())}
    without = [name for name, tensor in tensors.items() if tensor.grad is None]
    require(not without, f"no gradient for {', '.join(without)}")
    for name, tensor in tensors.items():
        gradient = tensor.grad
        assert gradient is not None
        along = noise(tuple(tensor.shape), "along", name)
        sides = []
        with torch.no_grad():
            for step in (STEP, -2 * STEP, STEP):  # there, to the other side, and back
                tensor += step * along
                sides.append((block(x) * weights).sum())
        numeric, analytic = (sides[0] - sides[1]) / (2 * STEP), (gradient * along).sum()
        off = (((numeric - analytic).abs() - rounding).relu() / (gradient.norm() * along.norm() + rounding)).item()
        require(off <= 1e-5, f"the gradient of {name} is off by {off:.1e} of its size from finite differences; 1e-05 is allowed")


def root_mean_square(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


@torch.no_grad()
def precision(case: Case) -> None:
    """In bfloat16 and float16, and under their autocast, the output keeps its dtype and is close to float64."""
    for dtype, autocast, tolerance in (
        (torch.float32, None, 1e-5),
        (torch.float16, None, 2e-2),
        (torch.bfloat16, None, 6e-2),
        (torch.float32, torch.float16, 2e-2),
        (torch.float32, torch.bfloat16, 6e-2),
    ):
        block, x = case.block(dtype=dtype), noise(IMAGES, "precision", dtype=dtype)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            y = case.run(block, x)
        under = f"{dtype} under autocast to {autocast}" if autocast else f"{dtype}"
        require(y.dtype == dtype, f"returned {y.dtype} in {under}")
        expected = block.double()(x.double())  # the same rounded parameters, so that what is left is arithmetic
        off = root_mean_square(y.double() - expected) / root_mean_square(expected)
        require(off <= tolerance, f"{under} is off by {off:.1e} of float64 in root mean square; {tolerance:.0e} is allowed")


@torch.no_grad()
def large_inputs(case: Case) -> None:
    """Large images, 1e4 in float32 and bfloat16 and 1e1 in float16, give finite numbers."""
    for dtype, scale in ((torch.float32, 1e4), (torch.bfloat16, 1e4), (torch.float16, 1e1)):
        y = case.block(dtype=dtype)((noise((2, CHANNELS, 9, 11), "large") * scale).to(dtype))
        lost = int((~y.isfinite()).sum())
        require(lost == 0, f"{lost} of {y.numel()} values are not finite in {dtype} for images of size {scale:.0e}")
