"""A verb of the command line: what it is for, and the flags that it takes."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from cpsam.cli.flags import Flag, build, flags_of
from cpsam.cli.parse import HELP, parse
from cpsam.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Verb(Generic[T]):
    """What a file of a verb says of it.

    Attributes:
        name: The word that is typed.
        request: The dataclass that its words become.
        about: What it does, in a sentence or two.
        examples: Commands, each with what it does.
        first: The flags that people need first, in this order.
        defaults: Defaults that differ from those of the request, by the names of the fields.
    """

    name: str
    request: type[T]
    about: str
    examples: Mapping[str, str]
    first: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def flags(self) -> dict[str, Flag]:
        return flags_of(self.request)

    def parse(self, words: list[str]) -> dict[str, Any]:
        """Returns the values that are given; prints the help and exits where it is asked for.

        Raises:
            UserError: If a word does not fit.
        """
        if asked := [word for word in words if word in HELP]:
            from cpsam.cli.help import help_text

            print(help_text(self, everything="--help-all" in asked), end="")
            sys.exit(0)
        if "" in words:
            before = [self.name, *words][words.index("")]
            raise UserError(
                f"{before}: the value after it is empty; leave both out, or name a value"
            )
        try:
            return parse(self.flags, words)
        except UserError as error:
            raise UserError(f"{error} (cpsam {self.name} --help lists the options)") from None

    def read(self, words: list[str]) -> T:
        """Returns the request that the words stand for.

        Raises:
            UserError: If a word does not fit, or a value breaks a rule.
        """
        return build(self.request, self.parse(words))
