"""Laws of what a call depends on and what it leaves behind, tried with random parameters."""

import copy
import random
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from cpsam.testing.case import (
    CHANNELS,
    IMAGES,
    Case,
    gap,
    noise,
    randomise,
    require,
    require_close,
    trying,
)
from cpsam.testing.settings import settings
from cpsam.testing.values import EXACT, without_chance

SINGLE = 1e-5  # of a block in float32
SETTLED = 0.1  # the variance of a batch is larger in the running statistics, by n / (n - 1)
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16)


def memory(case: Case) -> None:
    """Strides of the input change no value, and channels-last images come back channels-last, in
    both modes.
    """
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, SINGLE)):
        x = noise(IMAGES, "memory", dtype=dtype)
        spread = noise((2, 2 * CHANNELS, 9, 8), dtype=dtype)
        spread[:, ::2, 2:7, 1:] = x
        strided = {
            "a slice": spread[:, ::2, 2:7, 1:],
            "transposed memory": x.transpose(2, 3).contiguous().transpose(2, 3),
        }
        for training in (False, True):
            mode = f"{dtype}, {'training' if training else 'eval'} mode"
            with torch.set_grad_enabled(training):
                block = without_chance(case.block(dtype=dtype).train(training))
                expected = case.run(block, x).detach()
                require(
                    expected.is_contiguous(),
                    f"contiguous images come back with strides {expected.stride()} in {mode}",
                )
                last = block(x.contiguous(memory_format=torch.channels_last))
                kept = last.is_contiguous(memory_format=torch.channels_last)
                require(
                    kept, f"channels-last images come back with strides {last.stride()} in {mode}"
                )
                require_close(
                    last, expected, tolerance, f"channels-last against contiguous in {mode}"
                )
                for what, images in strided.items():
                    require_close(
                        block(images), expected, tolerance, f"{what} against contiguous in {mode}"
                    )
    same = x[:1, :1].expand(IMAGES)
    require_close(
        block.eval()(same),
        block(same.contiguous()),
        tolerance,
        "expanded images against contiguous",
    )


def untouched(case: Case) -> None:
    """A forward leaves its input and torch's settings as they were, and its output is memory of its
    own, in both modes.
    """
    for training in (False, True):
        for dtype in PRECISIONS:
            x = noise(IMAGES, "untouched", dtype=dtype)
            before = x.clone()
            for block in (case.block(dtype=dtype), case.new().to(dtype)):
                with torch.set_grad_enabled(training):
                    settled = settings()
                    y = case.call(block.train(training), x)
                    changed = [name for name, value in settings().items() if value != settled[name]]
                    require(not changed, f"changes {' and '.join(changed)} of the whole process")
                    kept = y.detach().clone()
                    other = case.call(block, 2 * x)
                mode = f"{dtype} with training={training}"
                require(
                    torch.equal(x, before),
                    f"moved its input by {gap(x, before):.1e} of it in {mode}",
                )
                places = [tensor.untyped_storage().data_ptr() for tensor in (x, y, other)]
                require(
                    places[1] != places[0], f"the output shares the memory of the input in {mode}"
                )
                require(
                    places[1] != places[2] and torch.equal(y, kept),
                    f"a second output takes the memory of the first in {mode}",
                )


def generators() -> tuple[list[int], object]:
    return torch.get_rng_state().tolist(), random.getstate()


def require_repeatable_draws(case: Case, x: Tensor) -> None:
    """Chance in training must come from torch's generator, and the block must not seed it."""
    block = case.block()
    before = generators()
    case.run(block, x)
    require(
        generators() == before, "a forward in eval mode draws from or seeds the global generator"
    )
    outputs, states = [], []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        block = case.block().train()
        torch.manual_seed(seed)
        outputs.append(case.run(block, x))
        states.append(generators())
    require(
        torch.equal(outputs[0], outputs[1]),
        f"training with the same seed is off by {gap(outputs[0], outputs[1]):.1e}",
    )
    require(states[0][0] != states[2][0], "a forward in training mode seeds the global generator")
    require(
        states[0][1] == before[1],
        "a forward in training mode draws from Python's generator; draw from torch's",
    )


def repeatable(case: Case) -> None:
    """In eval mode equal images and parameters give equal outputs, whatever came before; chance in
    training is torch's generator alone.
    """
    x = noise(IMAGES, "repeatable")
    with torch.no_grad():
        block = case.block()
        first = case.run(block, x)
        require(torch.equal(first, block(x)), f"a second call is off by {gap(block(x), first):.1e}")
        for images in (noise(IMAGES, "other"), noise((3, CHANNELS, 8, 3), "larger")):
            require_close(
                block(images),
                case.block()(images),
                EXACT,
                "a block that saw other images before, against one that did not",
            )
        require(
            torch.equal(first, block(x)),
            f"after other images the same call is off by {gap(block(x), first):.1e}",
        )
        again = block.train().eval().train().eval()(x)
        require(
            torch.equal(first, again),
            f"after train() and eval() the same call is off by {gap(again, first):.1e}",
        )
        require_repeatable_draws(case, x)
    contexts: tuple[tuple[str, Callable[[], AbstractContextManager[object]], bool], ...] = (
        ("in inference mode", torch.inference_mode, False),
        ("with gradients", torch.enable_grad, False),
        ("where the input requires a gradient", torch.enable_grad, True),
    )
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, SINGLE)):
        block, images = case.block(dtype=dtype), x.to(dtype)
        for what, context, requires_grad in contexts:
            with context(), trying(f"a call {what}"):
                y = block(images.clone().requires_grad_(requires_grad))
                y = y.detach().clone()
            with torch.no_grad():
                require_close(
                    y.clone(),
                    case.block(dtype=dtype)(images),
                    tolerance,
                    f"{what} against without, in {dtype}",
                )
        with trying("a training step after a call in inference mode"):
            block.train()(images).sum().backward()
    with torch.no_grad():
        block = case.block(dtype=torch.float32)
        block(x.float())
        require_close(
            randomise(block, 1)(x.float()),
            randomise(case.new().eval(), 1)(x.float()),
            SINGLE,
            "after new parameters, against a new block",
        )
        fresh = randomise(case.new().eval(), 1).double()
        with trying("double() after a call in float32:"):
            require_close(
                block.double()(x),
                fresh(x),
                EXACT,
                "double() after a call in float32, against before",
            )


@torch.no_grad()
def batch(case: Case) -> None:
    """Samples of a batch do not influence each other in eval mode."""
    images = 9
    block, x = case.block(), noise((images, *IMAGES[1:]), "batch")
    expected = case.run(block, x)
    for kept in (0, images - 1):
        changed = 3 * noise((images, *IMAGES[1:]), "changed") + 1
        changed[kept] = x[kept]
        what = "the first image" if kept == 0 else "the last image"
        require_close(block(changed)[kept], expected[kept], EXACT, f"{what} when the others change")
    for index in range(images):
        require_close(
            block(x[index : index + 1])[0],
            expected[index],
            EXACT,
            "an image alone against the same in a batch",
        )
    require_close(
        block(x[:5]), expected[:5], EXACT, "five images against the same in a batch of nine"
    )


def moved_buffers(block: nn.Module, step: Callable[[], object]) -> list[str]:
    """Returns the names of the entries of the state dict that a call changes."""
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    step()
    return [
        name
        for name, tensor in block.state_dict().items()
        if name not in before or not torch.equal(tensor, before[name])
    ]


def settle(block: nn.Module, x: Tensor) -> None:
    """Trains until the running statistics are those of the batch."""
    for module in block.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.momentum = 1.0
    for _ in range(2000):
        before = [buffer.clone() for buffer in block.buffers()]
        block(x)
        if all(
            gap(new, old) < 3e-5
            for new, old in zip(block.buffers(), before, strict=True)
            if new.is_floating_point()
        ):
            break


@torch.no_grad()
def modes(case: Case) -> None:
    """Training changes what norms and dropout layers do and nothing else; statistics move in
    training alone.

    A norm is a layer without children, or a module with running statistics of its own.
    """
    block, x = case.block(), noise(IMAGES, "modes")
    moved = moved_buffers(block, lambda: case.run(block, x))
    require(not moved, f"a forward in eval mode moves {', '.join(moved)}")
    expected = block(x)
    trained = copy.deepcopy(block).train()
    moved = moved_buffers(trained, lambda: case.run(trained, x))
    norms = [
        f"{name}.running_mean"
        for name, module in block.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
    ]
    stuck = [name for name in norms if name in trained.state_dict() and name not in moved]
    require(not stuck, f"training does not move {', '.join(stuck)}")
    keepers = {
        name.rpartition(".")[0] for name in moved if trained.state_dict()[name].is_floating_point()
    }
    for name, module in block.named_modules():
        module.training = name not in keepers and (
            module is block or any(True for _ in module.children())
        )
    require_close(
        block(x),
        expected,
        EXACT,
        "the block in training mode with its layers in eval mode, against eval mode",
    )
    for module in without_chance(trained).modules():
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            module.eval()  # its statistics are those of one image
    x = noise((32, CHANNELS, 4, 3), "settled")
    settle(trained, x)
    torch.manual_seed(0)
    expected = trained(x)
    off = gap(trained.eval()(x), expected)
    require(
        off <= SETTLED,
        f"eval mode is off by {off:.1e} of training mode, although the running statistics are those"
        " of the batch",
    )
