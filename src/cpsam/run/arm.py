"""One arm of a comparison: a name for tables, and a block with its arguments."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cpsam.attention import ATTENTION
from cpsam.attention.by_name import (
    MOST_LETTERS,
    block_maker,
    check_block,
    check_nothing_missing,
    missing_arguments,
    parse_block,
)
from cpsam.errors import UserError, unknown
from cpsam.text import shorten


@dataclass(frozen=True)
class Arm:
    """A block by name, and what its constructor is given besides the channels.

    Attributes:
        name: What tables call it, such as ``cpsam:fusion=sum``.
        attention: A name in ``ATTENTION``, or ``"none"``.
        arguments: Constructor arguments. A mapping from a number of channels, as text, to a value
            gives each width its own.
        block: A callable from channels to a block, in place of a name; `attention` is then its
            identity (:func:`cpsam.run.objects.identify`).
    """

    name: str
    attention: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    block: Callable[[int], nn.Module] | None = field(default=None, compare=False)

    @property
    def missing(self) -> list[str]:
        """The arguments without a default that are not given."""
        return [] if self.block else missing_arguments(self.attention, self.arguments)

    @property
    def slug(self) -> str:
        """The name as the first part of a folder's name: neither hidden nor like an option, and not
        too long.
        """
        plain = re.sub(r"[^A-Za-z0-9.=]+", "-", self.name).strip("-").lstrip("-.")
        return plain[:215] or self.attention  # of 255, with a seed of twenty digits and a hash

    def maker(self) -> Callable[[int], nn.Module] | None:
        """Returns a callable from channels to a block; None for no block."""
        if self.attention == "none" or self.block is not None:
            return self.block
        return block_maker(self.attention, self.arguments)


BARE = Arm("none", "none")
"""The network without blocks."""


def check_complete(arm: Arm) -> Arm:
    """Returns the arm if its block can be built.

    Raises:
        UserError: If an argument without a default is not given.
    """
    if arm.block is None:
        check_nothing_missing(arm.attention, arm.arguments, arm.name)
    return arm


def parse_arm(text: str) -> Arm:
    """Reads ``NAME`` or ``NAME:ARGUMENT=VALUE,ARGUMENT=VALUE``.

    Raises:
        UserError: If the block or an argument is unknown, a value is refused by the block, or the
            text is very long.

    Example:
        >>> parse_arm("cpsam:fusion=sum,reduction=4").arguments
        {'fusion': 'sum', 'reduction': 4}
    """
    attention, arguments = parse_block(text)
    return checked_arm(attention + text[len(attention) :], attention, arguments)


def checked_arm(
    name: str,
    attention: str,
    arguments: Mapping[str, Any],
    block: Callable[[int], nn.Module] | None = None,
) -> Arm:
    """Returns an arm whose block takes these arguments.

    Raises:
        UserError: If the name is empty or very long, the block or an argument is unknown, or a
            value is refused by the block.
    """
    if not 0 < len(name.strip()) == len(name) <= MOST_LETTERS:
        raise UserError(
            f"the name of an arm must have 1 to {MOST_LETTERS:,} letters, and no space at its ends;"
            f" got {shorten(name)}"
        )
    if block is None and attention not in ("none", *ATTENTION):
        raise unknown("attention", attention, ("none", *ATTENTION))
    if name != attention and name in ("none", *ATTENTION):
        raise UserError(
            f"arm {shorten(name)} is {attention}: the name of another block would mislead who reads"
            " the table"
        )
    if block is not None:
        return Arm(name, attention, arguments, block)
    if attention == "none":
        if arguments:
            raise UserError(
                f"the arm 'none' has no block and takes no argument; got {shorten(name)}"
            )
        return Arm(name, attention)
    check_block(attention, arguments, name)
    return Arm(name, attention, arguments)
