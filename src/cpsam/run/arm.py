"""One arm of a comparison: a block with its arguments, and the words that name it on a command
line.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cpsam.attention import ATTENTION, argument_names
from cpsam.errors import UserError, unknown
from cpsam.files import parse_json
from cpsam.measure import count_parameters
from cpsam.text import shorten

MOST_LETTERS = 1000
TRIED_CHANNELS = 32
MOST_PARAMETERS = 2**26  # 256 MiB for each place


@dataclass(frozen=True)
class Arm:
    """A block by name, and what its constructor is given besides the channels.

    Attributes:
        name: What tables call it, such as ``cpsam:fusion=sum``.
        attention: A name in ``ATTENTION``, or ``"none"``.
        arguments: Constructor arguments. A mapping from a number of channels, as text, to a value
            gives each width its own.
    """

    name: str
    attention: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The arguments without a default that are not given."""
        return missing_arguments(self.attention, self.arguments)

    @property
    def slug(self) -> str:
        """The name as the first part of a folder's name: neither hidden nor like an option, and not
        too long.
        """
        plain = re.sub(r"[^A-Za-z0-9.=]+", "-", self.name).strip("-").lstrip("-.")
        return plain[:215] or self.attention  # of 255, with a seed of twenty digits and a hash

    def maker(self) -> Callable[[int], nn.Module] | None:
        """A callable from channels to a block; None for no block."""
        if self.attention == "none":
            return None
        block = ATTENTION[self.attention]

        def make(in_channels: int) -> nn.Module:
            values = {
                name: value[str(in_channels)] if isinstance(value, Mapping) else value
                for name, value in self.arguments.items()
            }
            return block(in_channels, **values)

        return make


BARE = Arm("none", "none")
"""The network without blocks."""


def check_complete(arm: Arm) -> Arm:
    """Returns the arm if its block can be built.

    Raises:
        UserError: If an argument without a default is not given.
    """
    if missing := arm.missing:
        raise UserError(
            f"{arm.name} needs a value for {', '.join(missing)}, as in {arm.name}:{missing[0]}=16"
        )
    return arm


def parse_value(text: str) -> Any:
    """A JSON number or boolean, or a word as it stands."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def parse_arm(text: str) -> Arm:
    """Read ``NAME`` or ``NAME:ARGUMENT=VALUE,ARGUMENT=VALUE``.

    Raises:
        UserError: If the block or an argument is unknown, a value is refused by the block, or the
            text is very long.

    Example:
        >>> parse_arm("cpsam:fusion=sum,reduction=4").arguments
        {'fusion': 'sum', 'reduction': 4}
    """
    if len(text) > MOST_LETTERS:
        raise UserError(
            f"an arm has at most {MOST_LETTERS:,} letters; got {len(text):,}, {shorten(text)}"
        )
    attention, _, rest = text.partition(":")
    arguments: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals and attention in ATTENTION:
            raise unknown(f"argument of {attention}", name, allowed_arguments(attention))
        if name in arguments:
            raise UserError(f"argument {name} is given twice in {shorten(text)}")
        arguments[name] = parse_value(value)
    return checked_arm(text, attention, arguments)


def checked_arm(name: str, attention: str, arguments: Mapping[str, Any]) -> Arm:
    """An arm whose block takes these arguments.

    Raises:
        UserError: If the name is empty or very long, the block or an argument is unknown, or a
            value is refused by the block.
    """
    if not 0 < len(name.strip()) == len(name) <= MOST_LETTERS:
        raise UserError(
            f"the name of an arm must have 1 to {MOST_LETTERS:,} letters, and no space at its ends;"
            f" got {shorten(name)}"
        )
    if attention not in ("none", *ATTENTION):
        raise unknown("attention", attention, ("none", *ATTENTION))
    if name != attention and name in ("none", *ATTENTION):
        raise UserError(
            f"arm {shorten(name)} is {attention}: the name of another block would mislead who reads"
            " the table"
        )
    if attention == "none":
        if arguments:
            raise UserError(
                f"the arm 'none' has no block and takes no argument; got {shorten(name)}"
            )
        return Arm(name, attention)
    for argument in arguments:
        if argument not in allowed_arguments(attention):
            raise unknown(f"argument of {attention}", argument, allowed_arguments(attention))
    for argument, value in arguments.items():
        check_argument(f"{shorten(name)}: {argument}", value)
    if not missing_arguments(attention, arguments):
        try:
            parameters = count_parameters(
                ATTENTION[attention](TRIED_CHANNELS, **arguments, device="meta")
            )
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise UserError(
                f"{shorten(name)}: {(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from error
        if parameters > MOST_PARAMETERS:
            raise UserError(
                f"{shorten(name)} has {parameters:,} parameters on {TRIED_CHANNELS} channels, and a"
                f" block may have {MOST_PARAMETERS:,}; an argument is too large"
            )
    return Arm(name, attention, arguments)


def check_argument(name: str, value: object, nested: bool = True) -> None:
    """Refuses what no block takes: numbers that are not finite or have more than 64 bits, and lists
    or tables of more than one level.

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
            check_argument(name, inner, nested=False)
    else:
        raise UserError(
            f"{name} must be text, a number, true or false, or a list or a table of these; got"
            f" {shorten(value)}"
        )


def allowed_arguments(attention: str) -> list[str]:
    return [known for known in argument_names(ATTENTION[attention]) if known != "in_channels"]


def missing_arguments(attention: str, arguments: Mapping[str, Any]) -> list[str]:
    """The arguments without a default that are not given."""
    if attention == "none":
        return []
    parameters = inspect.signature(ATTENTION[attention]).parameters.values()
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.name != "in_channels" and p.name not in arguments
    ]
