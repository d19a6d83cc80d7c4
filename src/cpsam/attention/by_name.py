"""Finds a block by its name and arguments, as Python and the command line write them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from cpsam.attention import ATTENTION
from cpsam.errors import UserError, unknown
from cpsam.files import parse_json
from cpsam.text import shorten

MOST_LETTERS = 1000
FACTORY = ("device", "dtype")
TRIED_CHANNELS = 32
MOST_PARAMETERS = 2**26  # 256 MiB for each place


def parse_value(text: str) -> Any:
    """Returns a JSON number or boolean, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def parse_block(text: str) -> tuple[str, dict[str, Any]]:
    """Reads ``NAME`` or ``NAME:ARGUMENT=VALUE,ARGUMENT=VALUE``, whatever the case of the name.

    :func:`check_block` checks what it returns.

    Raises:
        UserError: If the text is very long, or an argument has no value or two.

    Example:
        >>> parse_block("CPSAM:fusion=sum,reduction=4")
        ('cpsam', {'fusion': 'sum', 'reduction': 4})
    """
    if len(text) > MOST_LETTERS:
        long = f"{len(text):,}, {shorten(text)}"
        raise UserError(f"a block in words has at most {MOST_LETTERS:,} letters; got {long}")
    name, _, rest = text.partition(":")
    name = name.lower() if name.lower() in ("none", *ATTENTION) else name
    arguments: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        argument, equals, value = part.partition("=")
        if not equals and name in ATTENTION:
            raise unknown(f"argument of {name}", argument, allowed_arguments(ATTENTION[name]))
        if argument in arguments:
            raise UserError(f"argument {argument} is given twice in {shorten(text)}")
        arguments[argument] = parse_value(value)
    return name, arguments


def check_block(name: str, arguments: Mapping[str, Any], label: str) -> None:
    """Refuses a name or an argument that is unknown, and a value that the block refuses.

    Arguments may be missing.

    Args:
        name: A name in ``ATTENTION``.
        arguments: Constructor arguments without the channels.
        label: What messages call the block.

    Raises:
        UserError: If one of them does not fit.
    """
    if name not in ATTENTION:
        raise unknown("attention", name, ATTENTION)
    block = ATTENTION[name]
    for argument, value in arguments.items():
        if argument not in allowed_arguments(block):
            raise unknown(f"argument of {name}", argument, allowed_arguments(block))
        check_value(f"{shorten(label)}: {argument}", value)
    if missing_arguments(name, arguments):
        return
    try:
        tried = block(TRIED_CHANNELS, **arguments, device="meta")
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{shorten(label)}: {why}") from error
    if (parameters := sum(p.numel() for p in tried.parameters())) > MOST_PARAMETERS:
        raise UserError(
            f"{shorten(label)} has {parameters:,} parameters on {TRIED_CHANNELS} channels, and a"
            f" block may have {MOST_PARAMETERS:,}; an argument is too large"
        )


def check_value(name: str, value: object, nested: bool = True) -> None:
    """Refuses what no block takes: infinite or very large numbers, and nested lists or tables.

    Raises:
        UserError: If the value is one of them.
    """
    if isinstance(value, str | bool) or value is None:
        return
    if isinstance(value, int | float):
        if not -(2**63) <= value < 2**63:
            raise UserError(
                f"{name} must be a finite number of at most 64 bits; got {shorten(value)}"
            )
    elif nested and isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            check_value(name, inner, nested=False)
    else:
        raise UserError(
            f"{name} must be text, a number, true or false, or a list or a table of these; got"
            f" {shorten(value)}"
        )


def allowed_arguments(make: Callable[..., nn.Module]) -> list[str]:
    """Returns the arguments that a block takes besides the channels, `device` and `dtype`."""
    return [name for name in list(inspect.signature(make).parameters)[1:] if name not in FACTORY]


def missing_arguments(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Returns the arguments without a default that are not given; ``"none"`` has no argument."""
    if name == "none":
        return []
    _, *rest = inspect.signature(ATTENTION[name]).parameters.values()
    return [p.name for p in rest if p.default is p.empty and p.name not in arguments]


def check_nothing_missing(name: str, arguments: Mapping[str, Any], label: str) -> None:
    """Refuses a block that lacks an argument without a default.

    Raises:
        UserError: If it does.
    """
    if missing := missing_arguments(name, arguments):
        example = f"{label}{',' if ':' in label else ':'}{missing[0]}=16"
        raise UserError(f"{label} needs a value for {', '.join(missing)}, as in {example}")


def block_maker(name: str, arguments: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """Returns a callable from a number of channels to a block.

    Args:
        name: A name in ``ATTENTION``.
        arguments: Constructor arguments. A mapping from a number of channels, as text, to a value
            gives each width its own value.
    """

    def make(in_channels: int) -> nn.Module:
        values = {key: at_width(key, value, in_channels) for key, value in arguments.items()}
        return ATTENTION[name](in_channels, **values)

    return make


def at_width(argument: str, value: Any, in_channels: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    if str(in_channels) not in value:
        raise ValueError(f"{argument} has no value for {in_channels} channels")
    return value[str(in_channels)]
