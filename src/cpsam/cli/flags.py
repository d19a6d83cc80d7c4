"""Flags from frozen dataclasses: each field of a request, also of one inside another, is a flag."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cpsam.cli.source import Source
from cpsam.errors import UserError
from cpsam.text import shorten
from cpsam.typed import choices_of

T = TypeVar("T")

FOLDERS = ("out", "data_root", "run", "path")
LISTED = 40  # letters of choices that stand beside a flag
VALUES = {int: "NUMBER", float: "NUMBER", Path: "FILE", str: "NAME"}
RULES = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Flag:
    """One thing that a person can set.

    Attributes:
        name: The field, as in ``data_root``.
        kind: ``str``, ``int``, ``float``, ``bool`` or ``Path``.
        default: What it is where it is not given; ``MISSING`` where it must be given.
        owner: The dataclass that has the field.
        many: Whether it takes several values.
        positional: Whether it is given by its place among the words.
        choices: The values that it takes; empty: any.
    """

    name: str
    kind: type
    default: Any
    owner: type
    many: bool = False
    positional: bool = False
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """Returns how it is given, as in ``--data-root``."""
        return self.value if self.positional else option(self.name)

    @property
    def value(self) -> str:
        """Returns the word that stands for its value in a help text; "" for a switch."""
        if self.kind is bool:
            return ""
        word = "FOLDER" if self.name in FOLDERS else VALUES[self.kind]
        if 0 < len(listed := "|".join(self.choices)) <= LISTED:
            word = listed
        return f"{word} …" if self.many else word

    @property
    def needed(self) -> bool:
        return self.default is MISSING

    @cached_property
    def text(self) -> str:
        """Returns what the dataclass says of it."""
        return Source.of(self.owner.__module__).fields(self.owner.__name__)[self.name]

    def read(self, words: list[str]) -> Any:
        """Returns the value that these words give.

        Raises:
            UserError: If a word is of another kind.
        """
        values = [self.convert(word) for word in words]
        return tuple(values) if self.many else values[-1]

    def convert(self, word: str) -> Any:
        try:
            return self.kind(word)
        except ValueError:
            rule = f"{self.option} must be {RULES[self.kind]}"
            raise UserError(f"{rule}; got {shorten(word)}") from None


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def flags_of(request: type) -> dict[str, Flag]:
    """Returns the flags of a dataclass, by the names of their fields.

    Args:
        request: A dataclass. Its fields are texts, numbers, paths, true or false, or tuples of
            these, or dataclasses of such fields. The metadata of a field may hold ``positional``,
            and ``choices`` that the dataclass does not check.
    """
    return {flag.name: flag for flag in walk(request)}


def walk(request: type) -> Iterator[Flag]:
    kinds = get_type_hints(request)
    for field in fields(request):
        if is_dataclass(kinds[field.name]):
            yield from walk(kinds[field.name])
        else:
            yield flag_of(field, kinds[field.name], request)


def flag_of(field: Field[Any], kind: Any, owner: type) -> Flag:
    kind = next((each for each in get_args(kind) if NoneType in get_args(kind)), kind)
    many = get_origin(kind) is tuple
    return Flag(
        field.name,
        get_args(kind)[0] if many else kind,
        field.default,
        owner,
        many,
        field.metadata.get("positional", False),
        tuple(field.metadata.get("choices", ())) or choices_of(owner, field.name),
    )


def build(request: type[T], values: dict[str, Any]) -> T:
    """Returns a dataclass with these values in its fields, and in those of dataclasses inside it.

    Raises:
        UserError: If a value breaks a rule.
    """
    kinds = get_type_hints(request)
    arguments = {}
    for field in fields(request):  # pyrefly: ignore
        kind = kinds[field.name]
        if is_dataclass(kind):
            arguments[field.name] = build(kind, values)  # pyrefly: ignore
        elif field.name in values:
            arguments[field.name] = values[field.name]
    return request(**arguments)
