"""Reads plain data as typed records: a value of another type is an error that names the field.

Whatever a person or a disk did to a file, its fields have their types here.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cpsam.errors import DataError
from cpsam.files import read_json
from cpsam.text import shorten

T = TypeVar("T")

STUDY_BYTES = 2**30  # A plan of 100,000 runs has about 200 MB.
WORDS = {
    float: "a finite number",
    int: "a whole number of at most 64 bits",
    str: "text",
    bool: "true or false",
    list: "a list",
}


def read_record(
    kind: type[T], path: Path, max_bytes: int = STUDY_BYTES
) -> tuple[T, dict[str, Any]] | None:
    """Reads a file of ours.

    Args:
        kind: A dataclass. Its fields are checked; what else is in the file is left alone.
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


def checked(kind: Any, value: Any, where: str) -> Any:
    """Returns a value of JSON as one of this type.

    Args:
        kind: A dataclass, ``float``, ``int``, ``str``, ``bool``, ``list[...]``, ``tuple[...]``,
            ``tuple[KIND, ...]``, ``dict[str, ...]``, a union of one of these with None, or ``Any``.
        value: What JSON gave.
        where: Names the value in an error.

    Raises:
        DataError: If it is of another type.

    Example:
        >>> checked(list[float], [0.5, 1], "curve")
        [0.5, 1.0]
        >>> checked(list[float], [0.5, "high"], "curve")
        Traceback (most recent call last):
        cpsam.errors.DataError: curve: must be a finite number; got 'high'
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return checked_fields(kind, value, where)
    if origin is UnionType:
        return (
            None
            if value is None
            else checked(next(each for each in arguments if each is not NoneType), value, where)
        )
    if origin is dict:
        expect(isinstance(value, Mapping), "an object", value, where)
        return {
            key: checked(arguments[1], inner, f"{where}: {shorten(key)}")
            for key, inner in value.items()
        }
    if origin in (list, tuple):
        expect(isinstance(value, list), "a list", value, where)
        if origin is list or arguments[-1] is Ellipsis:
            return origin(checked(arguments[0], inner, where) for inner in value)
        expect(len(value) == len(arguments), f"a list of {len(arguments)}", value, where)
        return tuple(
            checked(each, inner, where) for each, inner in zip(arguments, value, strict=True)
        )
    expect(is_one(kind, value), WORDS[kind], value, where)
    return float(value) if kind is float else value


def checked_fields(kind: Any, value: Any, where: str) -> Any:
    expect(isinstance(value, Mapping), "an object", value, where)
    kinds = field_kinds(kind)
    for each in fields(kind):
        if each.name not in value and each.default is MISSING and each.default_factory is MISSING:
            raise DataError(f"{where}: {each.name} is missing")
    present = [each.name for each in fields(kind) if each.name in value]
    return kind(**{name: checked(kinds[name], value[name], f"{where}: {name}") for name in present})


field_kinds = cache(get_type_hints)


def as_json(value: Any) -> Any:
    """Returns typed records as plain data for JSON: the inverse of :func:`checked`.

    Example:
        >>> as_json({"seeds": (0, 1)})
        {'seeds': [0, 1]}
    """
    if is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def is_one(kind: type, value: object) -> bool:
    """Whether a value is of a plain type; true is no number, and a number is finite and not
    absurdly long.
    """
    if kind is float or kind is int:
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
            return False
        return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
    return isinstance(value, kind)


def expect(holds: bool, what: str, value: object, where: str) -> None:
    if not holds:
        raise DataError(f"{where}: must be {what}; got {shorten(value)}")
