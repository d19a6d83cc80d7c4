"""The table of laws, and the function that tries them all on a class."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from cpsam.testing import construction, determinism, gradients, states, transforms, values
from cpsam.testing.case import CHANNELS, BrokenLaw, Case, Configuration, Reference, Violation, told
from cpsam.testing.settings import restore, settings
from cpsam.torch_state import thread_count

Scope = Literal["class", "configuration", "cover"]


@dataclass(frozen=True)
class Law:
    """One law of the contract.

    Attributes:
        check: Raises if a case breaks it.
        scope: Whether it is tried once for the class, on each configuration, or, being slow, on as
            few configurations as show each word and switch among the arguments once.
    """

    check: Callable[[Case], None]
    scope: Scope = "configuration"

    @property
    def statement(self) -> str:
        return " ".join((self.check.__doc__ or "").partition("\n\n")[0].split())


LAWS: dict[str, Law] = {
    "constructor": Law(construction.constructor, "class"),
    "shape": Law(values.shape),
    "arguments": Law(construction.arguments, "class"),
    "parameters": Law(construction.parameters),
    "macs": Law(construction.macs),
    "identity": Law(construction.identity),
    "learning": Law(construction.learning),
    "memory": Law(states.memory),
    "untouched": Law(states.untouched),
    "repeatable": Law(states.repeatable),
    "batch": Law(states.batch),
    "modes": Law(states.modes),
    "reference": Law(values.reference),
    "gradient": Law(gradients.gradient),
    "deterministic": Law(determinism.deterministic),
    "precision": Law(values.precision),
    "large_inputs": Law(values.large_inputs),
    "copies": Law(transforms.copies),
    "fx": Law(transforms.fx),
    "script": Law(transforms.script),
    "compile": Law(transforms.compile, "cover"),
    "export": Law(transforms.export, "cover"),
    "onnx": Law(transforms.onnx, "cover"),
}

# Where one of these is broken the others have nothing to say.
FUNDAMENTAL = ("constructor", "shape")


def covering(case: Case) -> list[Configuration]:
    """Returns a few configurations that show every word and switch that any of them has.

    Numbers only change sizes.
    """
    everything = [
        construction.all_arguments(replace(case, arguments=one)).items()
        for one in case.configurations
    ]
    shown = [
        {(key, value) for key, value in one if isinstance(value, str | bool)} for one in everything
    ]
    chosen, missing = [0], set().union(*shown) - shown[0]
    while missing:
        best = max(range(len(shown)), key=lambda index: len(shown[index] & missing))
        chosen.append(best)
        missing -= shown[best]
    return [case.configurations[index] for index in chosen]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps generators and settings, ignores warnings, and works in one thread.

    With tensors this small, threads only wait for each other.
    """
    before = settings()
    drawn = random.getstate()
    try:
        with thread_count(1), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(drawn)
        restore(before)


def violation(law: Law, case: Case) -> str | None:
    """Returns what `law` has against `case`, if anything.

    Any other error while it looks is a fault of the block, too.
    """
    try:
        law.check(case)
    except Violation as broken:
        return str(broken)
    except Exception as error:
        return told(error)
    return None


def check_attention(
    cls: Callable[..., nn.Module],
    *,
    variants: Sequence[Mapping[str, Any]] = (),
    reference: Reference | None = None,
    parameters: Callable[..., int] | None = None,
    macs: Callable[..., int] | None = None,
    identity: bool = True,
    channels_multiple_of: int = 1,
) -> None:
    """Tries the contract of an attention block, every law of ``LAWS``, on a class.

    All laws but those on its making are tried after all parameters and buffers have been
    randomised, and demand that the output differs from the input: a block that does nothing would
    pass the rest. Takes one to a few seconds a configuration, most of them for compilers; those are
    tried only if nothing else is broken.

    Args:
        cls: The class, called as ``cls(in_channels, **arguments)``. A module (N, C, H, W) -> (N, C,
            H, W).
        variants: Constructor arguments to try besides the defaults. Each argument must have another
            value in one of them, so that it can be seen to do something. Where an argument has no
            default, the variants are all that is tried.
        reference: The definition, ``reference(block, x) -> y`` in float64; written without the code
            of the block, in loops, say.
        parameters: The number of parameters, ``parameters(in_channels, **arguments)``; it gets all
            arguments, defaults included.
        macs: The number of multiply-accumulates, ``macs((N, C, H, W), **arguments)``, as
            :func:`cpsam.measure.count_macs` counts them.
        identity: Whether a new block is the identity. False for multiplicative gates.
        channels_multiple_of: A divisor of 24, for a class that takes only multiples of it, such as
            its number of heads.

    Raises:
        ValueError: If `channels_multiple_of` does not divide 24.
        BrokenLaw: An AssertionError that says which laws are broken, in which configuration, and by
            how much.

    Example:
        >>> class Louder(torch.nn.Module):
        ...     def __init__(self, in_channels, *, device=None, dtype=None):
        ...         super().__init__()
        ...         self.gain = torch.nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
        ...
        ...     def forward(self, x):
        ...         return x + self.gain * x.amax()
        >>> try:
        ...     check_attention(Louder)
        ... except BrokenLaw as error:
        ...     print(error.laws["batch"].partition(": off")[0])
        Louder(24): the first image when the others change
    """
    if channels_multiple_of < 1 or CHANNELS % channels_multiple_of:
        raise ValueError(f"channels_multiple_of must divide {CHANNELS}; got {channels_multiple_of}")
    required = any(p.default is p.empty for p in construction.own_parameters(cls))
    configurations = tuple(variants) if required and variants else ({}, *variants)
    case = Case(
        cls,
        configurations[0],
        configurations,
        reference,
        parameters,
        macs,
        identity,
        channels_multiple_of,
    )
    tried: dict[Scope, Sequence[Configuration]] = {
        "class": configurations[:1],
        "configuration": configurations,
        "cover": covering(case),
    }
    broken: dict[str, str] = {}
    with undisturbed():
        for name, law in LAWS.items():
            if broken and (
                law.scope == "cover" or any(fundamental in broken for fundamental in FUNDAMENTAL)
            ):
                continue
            for arguments in tried[law.scope]:
                one = replace(case, arguments=arguments)
                if (seen := violation(law, one)) is not None:
                    broken[name] = f"{one}: {seen}"
                    break
    if broken:
        raise BrokenLaw({name: (LAWS[name].statement, seen) for name, seen in broken.items()})
