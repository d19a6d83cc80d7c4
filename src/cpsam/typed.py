"""Reads plain data as dataclasses, and checks each value against the annotation of its field.

An annotation holds the type and, in ``Annotated``, the rules: :class:`Range`, :class:`Choices`,
:class:`Distinct`. So a new field is one edit. A number stays as it is, an ``int`` also where
``float`` is annotated: the hash of a run depends on how JSON writes it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cpsam.errors import DataError, UserError, unknown
from cpsam.files import read_json
from cpsam.text import shorten

T = TypeVar("T")

STUDY_BYTES = 2**30  # A plan of 100,000 runs has about 200 MB.
NUMBERS = {int: "a whole number", float: "a number"}
WORDS = {
    int: "a whole number of at most 64 bits",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    Path: "a path",
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds a number from below, from above, or both.

    Example:
        >>> str(Range(above=0, most=1)), 0 in Range(above=0, most=1)
        ('above 0 and at most 1', False)
    """

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        low = f"above {self.above:,}" if self.above > -math.inf else f"of at least {self.least:,}"
        if self.most == self.below == math.inf:
            return low
        if self.above > -math.inf:
            return f"{low} and at most {self.most:,}"
        below = f"below {self.below:,}" if self.below < math.inf else f"{self.most:,}"
        return f"from {self.least:,} to {below}"


class Rule:
    """Says what a value may be, beyond its type."""

    def check(self, value: Any, name: str) -> None:
        """Raises a UserError that begins with `name` if the value, of any type, breaks the rule."""


class Choices(Rule):
    """Names the texts that a value may be."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def check(self, value: Any, name: str) -> None:
        if value not in self.names:
            raise unknown(name, value, self.names)


class Distinct(Rule):
    """Refuses a list that is empty or repeats a value, and names the first few of these."""

    def check(self, value: Iterable[object], name: str) -> None:
        counts = Counter(value)
        if not counts:
            raise UserError(f"{name} is empty: give at least one")
        repeated = sorted(str(each) for each, count in counts.items() if count > 1)
        if repeated:
            more = f" and {len(repeated) - 3:,} more" if len(repeated) > 3 else ""
            raise UserError(
                f"{name} must not repeat; {', '.join(repeated[:3])}{more} is given more than once"
            )


def from_table(cls: type[T], table: object, where: str = "", **given: Any) -> T:
    """Returns settings of a person, a table of TOML or JSON, as the dataclass `cls`.

    Args:
        cls: The dataclass. Each key of the table must be one of its fields.
        table: What the file says.
        where: Names the table in an error; "" for the whole file.
        given: Fields that the table must not have.

    Raises:
        UserError: If a key is unknown or missing, or a value breaks its rule.

    Example:
        >>> from_table(Range, {"leest": 0}, "range")
        Traceback (most recent call last):
        cpsam.errors.UserError: unknown key of range 'leest': did you mean 'least'? Choices: ...
    """
    return Reader(strict=True).fields(cls, table, where, given)


def checked(kind: Any, value: Any, where: str) -> Any:
    """Returns a value from a file of ours as one of this type. Unknown keys are left out.

    Args:
        kind: A dataclass, ``float``, ``int``, ``str``, ``bool``, ``Path``, ``list[...]``,
            ``tuple[...]``, ``tuple[KIND, ...]``, ``dict[str, ...]``, a union of such types and
            None, or ``Any``; with rules in ``Annotated``.
        value: What JSON gave.
        where: Names the file in an error.

    Raises:
        DataError: If it is of another type, or breaks a rule.

    Example:
        >>> checked(list[float], [0.5, 1], "curve")
        [0.5, 1]
        >>> checked(list[float], [0.5, "high"], "curve")
        Traceback (most recent call last):
        cpsam.errors.DataError: curve: must be a finite number; got 'high'
    """
    try:
        return Reader(strict=False).read(kind, value, "")
    except UserError as error:
        raise DataError(f"{where}: {error}") from error


def check(settings: Any) -> None:
    """Checks the fields of a frozen dataclass; call it in ``__post_init__``. Lists become tuples.

    Raises:
        UserError: If a value is of another type, or breaks a rule.
    """
    for name, kind in field_kinds(type(settings)).items():
        value = Reader(strict=True).read(kind, getattr(settings, name), name)
        object.__setattr__(settings, name, value)


def read_record(
    kind: type[T], path: Path, max_bytes: int = STUDY_BYTES
) -> tuple[T, dict[str, Any]] | None:
    """Reads a file of ours.

    Args:
        kind: A dataclass. Its fields are checked, and other keys of the file are left alone.
        path: The file.
        max_bytes: Refuses a file that is larger.

    Returns:
        The record, and the content of the file as it is; None if there is no file.

    Raises:
        DataError: If it is no regular file, is not JSON, or a field is missing or of another type.
        OSError: If it cannot be read.
    """
    content = read_json(path, max_bytes)
    return None if content is None else (checked(kind, content, str(path)), content)


def as_json(value: Any) -> Any:
    """Returns dataclasses as plain data for JSON: the inverse of :func:`checked`.

    Example:
        >>> as_json({"seeds": (0, 1)})
        {'seeds': [0, 1]}
    """
    if is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, Path):
        return str(value)
    return [as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@cache
def field_kinds(cls: type) -> dict[str, Any]:
    """Returns the annotation of each field of a dataclass, with its rules."""
    hints = get_type_hints(cls, include_extras=True)
    return {each.name: hints[each.name] for each in fields(cls)}


def choices_of(cls: type, name: str) -> tuple[str, ...]:
    """Returns the texts that a field of a dataclass may be; empty: any."""
    rules = get_args(field_kinds(cls)[name])
    return next((rule.names for rule in rules if isinstance(rule, Choices)), ())


@dataclass(frozen=True)
class Reader:
    """Reads values by their types. `strict`: an unknown key is an error; otherwise it is ignored.

    Each method raises a UserError that begins with the name of the value, as in
    ``task.transform.min_crop``.
    """

    strict: bool

    def read(self, kind: Any, value: Any, name: str, rules: tuple[Any, ...] = ()) -> Any:
        """Returns a value as one of this type, if it follows the rules."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.read(arguments[0], value, name, (*arguments[1:], *rules))
        if kind is Any or origin is Callable or (value is None and NoneType in arguments):
            return value
        if origin in (UnionType, Union):
            return self.read(closest(arguments, value), value, name, rules)
        if is_dataclass(kind):
            return value if isinstance(value, kind) else self.fields(kind, value, name, {})
        if origin in (dict, Mapping):
            table = self.table(value, name)
            return {key: self.read(arguments[1], table[key], below(name, key)) for key in table}
        if origin in (list, tuple):
            value = self.elements(origin, arguments, value, name)
        for rule in rules:
            if isinstance(rule, Rule):
                rule.check(value, name)
        return value if origin in (list, tuple) else plain(kind, value, name, rules)

    def fields(self, cls: Any, value: object, name: str, given: Mapping[str, Any]) -> Any:
        """Returns a table as a dataclass."""
        table, kinds = self.table(value, name), field_kinds(cls)
        names = [each for each in kinds if each not in given]
        for key in table if self.strict else ():
            if key not in names:
                raise unknown(f"key of {name}" if name else "key", key, names)
        for each in fields(cls):
            needed = each.default is MISSING and each.default_factory is MISSING
            if needed and each.name not in {*table, *given}:
                raise UserError(f"{below(name, each.name)} is missing")
        present = [each for each in names if each in table]
        values = {each: self.read(kinds[each], table[each], below(name, each)) for each in present}
        return cls(**values, **given)

    def elements(self, origin: Any, arguments: tuple[Any, ...], value: Any, name: str) -> Any:
        """Returns a list as a list or a tuple with elements of these types."""
        require(isinstance(value, (list, tuple)), "a list", value, name)
        if origin is list or arguments[-1] is Ellipsis:
            return origin(self.read(arguments[0], each, name) for each in value)
        require(len(value) == len(arguments), f"a list of {len(arguments)}", value, name)
        return tuple(self.read(*pair, name) for pair in zip(arguments, value, strict=True))

    def table(self, value: Any, name: str) -> Mapping[str, Any]:
        """Returns a value that must be a table of TOML or an object of JSON."""
        require(isinstance(value, Mapping), "a table" if self.strict else "an object", value, name)
        return value


def below(name: str, key: str) -> str:
    """Returns the name of the value under a key of a table."""
    key = key if key.isidentifier() else shorten(key)
    return f"{name}.{key}" if name else key


def closest(kinds: Iterable[Any], value: object) -> Any:
    """Returns the type of a union that a value is of, or else the first one but None."""
    plain = {kind: get_origin(kind) or kind for kind in kinds if kind is not NoneType}
    return next((kind for kind in plain if isinstance(value, plain[kind])), next(iter(plain)))


def plain(kind: Any, value: Any, name: str, rules: Iterable[Any]) -> Any:
    """Returns a value of a plain type. True is no number; a number is finite and in its range."""
    bounds = next((rule for rule in rules if isinstance(rule, Range)), None)
    if kind in NUMBERS:
        what = WORDS[kind] if bounds is None else f"{NUMBERS[kind]} {bounds}"
        require(is_number(kind, value) and (bounds is None or value in bounds), what, value, name)
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    require(isinstance(value, kind), WORDS[kind], value, name)
    return value


def is_number(kind: type, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def require(holds: bool, what: str, value: object, name: str) -> None:
    if not holds:
        raise UserError(f"{name} must be {what}; got {shorten(value)}".lstrip())
