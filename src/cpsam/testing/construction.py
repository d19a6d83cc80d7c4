"""Laws of how a block is made: its constructor, its size, and how it starts."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cpsam.measure import count_macs, count_parameters
from cpsam.testing.case import (
    CHANNELS,
    IMAGES,
    ODD_CHANNELS,
    ODD_IMAGES,
    Case,
    Configuration,
    gap,
    noise,
    randomise,
    require,
    require_finite,
    trying,
)

FACTORY = ("device", "dtype")


def own_parameters(cls: Callable[..., nn.Module]) -> list[inspect.Parameter]:
    """Returns the constructor's arguments without `in_channels`, `device` and `dtype`."""
    given = list(inspect.signature(cls).parameters.values())[1:]
    return [
        p
        for p in given
        if p.name not in FACTORY and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def constructor(case: Case) -> None:
    """`in_channels` comes first, the rest is keyword-only and ends in `device` and `dtype`; an
    unknown argument is a TypeError.

    A block can be printed.
    """
    first, *rest = inspect.signature(case.cls).parameters.values()
    require(first.name == "in_channels", f"the first argument is {first.name!r}, not 'in_channels'")
    require(
        tuple(p.name for p in rest[-2:]) == FACTORY,
        f"the last arguments are {[p.name for p in rest[-2:]]}, not device and dtype",
    )
    loose = [str(p) for p in rest if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    require(not loose, f"not keyword-only: {', '.join(loose)}")
    try:
        case.cls(CHANNELS, **case.arguments, no_such_argument=1)
    except TypeError:
        pass
    else:
        require(False, "swallows an unknown argument")
    with trying("repr()"):
        repr(case.new())
    after = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        case.cls(CHANNELS, **case.arguments)
        after.append(torch.get_rng_state())
    require(not torch.equal(*after), "seeds the global generator")
    for key, value in (("device", torch.device("meta")), ("dtype", torch.float64)):
        block = case.new(CHANNELS, **{key: value})
        tensors = [*block.named_parameters(), *block.named_buffers()]
        deaf = [
            name
            for name, tensor in tensors
            if tensor.is_floating_point() and getattr(tensor, key) != value
        ]
        require(not deaf, f"{key}={value} does not reach {', '.join(deaf)}")


def fingerprint(block: nn.Module) -> tuple[list[Any], list[torch.Tensor]]:
    """Returns what can tell two configurations apart: structure, starting values and outputs.

    The outputs are those in both modes after the same randomisation.

    The block's own line of the repr is left out: to print an argument is not to use it.
    """
    structure = [
        [(name, tensor.shape) for name, tensor in block.state_dict().items()],
        [repr(child) for child in block.children()],
    ]
    values = [tensor.double() for tensor in block.state_dict().values()]
    randomise(block).double()
    x = noise(IMAGES, "fingerprint")
    with torch.no_grad():
        return structure, [*values, block.eval()(x), block.train()(x)]


def differs(first: nn.Module, second: nn.Module) -> bool:
    (structure, values), (other_structure, other_values) = fingerprint(first), fingerprint(second)
    return structure != other_structure or any(
        gap(a, b) > 1e-6
        for a, b in zip(values, other_values, strict=True)
        if a.numel() and not torch.equal(a, b)
    )


def pairs(
    name: str, default: Any, configurations: tuple[Configuration, ...]
) -> Iterator[tuple[Configuration, Configuration]]:
    """Yields pairs of configurations that differ in one argument alone."""
    for one in configurations:
        if name not in one:
            continue
        rest = {key: value for key, value in one.items() if key != name}
        if default is not inspect.Parameter.empty and one[name] != default:
            yield one, rest
        yield from (
            (one, other)
            for other in configurations
            if name in other and other[name] != one[name] and {**other, **rest} == other
        )


def arguments(case: Case) -> None:
    """Every argument of the constructor changes parameters, starting values, layers or output."""
    for name, default in (
        (parameter.name, parameter.default) for parameter in own_parameters(case.cls)
    ):
        found = list(pairs(name, default, case.configurations))
        require(
            bool(found),
            f"no variant shows what {name!r} does: give one in which it alone has another value",
        )
        changes = any(
            differs(replace(case, arguments=one).new(), replace(case, arguments=other).new())
            for one, other in found
        )
        require(
            changes,
            f"{name!r} changes nothing, for instance between {dict(found[0][0])} and"
            f" {dict(found[0][1])}",
        )


def all_arguments(case: Case) -> dict[str, Any]:
    """Returns the arguments of a configuration, defaults included."""
    return {
        **{parameter.name: parameter.default for parameter in own_parameters(case.cls)},
        **case.arguments,
    }


def parameters(case: Case) -> None:
    """The number of parameters is the closed form, at three widths."""
    if case.parameters is None:
        return
    for width in (CHANNELS, 2 * CHANNELS, case.sized(1, ODD_CHANNELS)[1]):
        has, wants = (
            count_parameters(case.new(width)),
            case.parameters(width, **all_arguments(case)),
        )
        require(has == wants, f"{has} parameters at {width} channels; the closed form says {wants}")


def macs(case: Case) -> None:
    """The number of multiply-accumulates is the closed form, as :func:`cpsam.measure.count_macs`
    counts them.
    """
    if case.macs is None:
        return
    for shape in (IMAGES, (3, CHANNELS, 8, 3), case.sized(*ODD_IMAGES)):
        has, wants = count_macs(case.new(shape[1]), shape), case.macs(shape, **all_arguments(case))
        require(
            has == wants, f"{has} MACs for images of shape {shape}; the closed form says {wants}"
        )


def identity(case: Case) -> None:
    """A new block returns its input bit by bit, in both modes; multiplicative gates are exempt."""
    if not case.identity:
        return
    for dtype in (torch.float32, torch.bfloat16):
        for size in (IMAGES, case.sized(*ODD_IMAGES), (5, CHANNELS, 1, 1)):
            x = noise(size, "identity", dtype=dtype)
            for training in (True, False):
                y = case.call(case.new(size[1]).to(dtype).train(training), x)
                mode = "training" if training else "eval"
                require(
                    torch.equal(y, x),
                    f"a new block moves images of {size} by {gap(y, x):.1e} of their size in {mode}"
                    f" mode, {dtype}",
                )


def learning(case: Case) -> None:
    """Within six steps of gradient descent from its start a block gives every parameter a gradient,
    finite and not zero.
    """
    block = case.new().double()
    x, direction = noise(IMAGES, "learning"), noise(IMAGES, "direction")
    reached: set[str] = set()
    for step in range(6):
        block.zero_grad()
        (case.call(block, x) * direction).mean().backward()
        for name, parameter in block.named_parameters():
            if parameter.grad is not None:
                require_finite(parameter.grad, f"the gradient of {name} in step {step + 1}")
        reached |= {
            name
            for name, p in block.named_parameters()
            if p.grad is not None and bool(p.grad.count_nonzero())
        }
        with torch.no_grad():
            for parameter in block.parameters():
                if parameter.grad is not None:
                    parameter -= parameter.grad
    stuck = [
        name for name, p in block.named_parameters() if name not in reached and p.requires_grad
    ]
    require(not stuck, f"no gradient reaches {', '.join(stuck)}")
