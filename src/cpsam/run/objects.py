"""Gives classes and functions an identity that is the same tomorrow: their name and their source.

A run made of Python objects is named by the identities of these objects. So the same call continues
the run, and a changed class makes another run. The identity of a function covers its source, its
default arguments, the values that it closes over, and the classes and functions of one's own that
it uses, in turn. Names of installed packages stand for themselves: a new version does not make
another run.
"""

import dis
import functools
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import torch

from cpsam.errors import UserError
from cpsam.files import hash_json
from cpsam.run.source import functions_of, is_installed_file, source_of, undecorated

PLAIN = (
    *(str, int, float, complex, bool, bytes, type(None), Path, Enum, torch.dtype, torch.device),
    *(logging.Logger, re.Pattern, TypeVar),
)
HASH_LETTERS = 12


@dataclass(frozen=True)
class Versioned:
    """An object whose identity is a text that a person changes whenever the object changes.

    Args:
        thing: The object.
        version: Any text, such as ``"2"``.

    Example:
        >>> identify(Versioned(lambda channels: None, "2"), "mine")
        'mine@version-2'
    """

    thing: Any
    version: str

    def __post_init__(self) -> None:
        if not isinstance(self.version, str) or not self.version.strip():
            raise UserError(f"version must be a text that is not empty; got {self.version!r}")


class Unidentified(Exception):
    """Says which part of an object has no identity."""


def unwrap(thing: Any) -> Any:
    """Returns the object without its version."""
    return thing.thing if isinstance(thing, Versioned) else thing


def is_identity(name: str) -> bool:
    """Tells whether a name is the identity of an object, and not the name of a block or a network.

    Example:
        >>> [is_identity(name) for name in ("cpsam", "timm/vit.in1k", "my_block.MyBlock@0a1b")]
        [False, False, True]
    """
    return "@" in name or ("." in name and "/" not in name)


def identify(thing: object, name: str, stored: str = "") -> str:
    """Returns the identity of a class or a function.

    Args:
        thing: The class or the function, as it is or with a version.
        name: What the person calls it; in an error, and before a version.
        stored: An identity to compare with, whose name before a version is taken.

    Raises:
        UserError: If two different objects could have the same identity.

    Example:
        >>> identify(torch.nn.Identity, "mine")
        'torch.nn.modules.linear.Identity'
    """
    if isinstance(thing, Versioned):
        own, at, _ = stored.partition("@version-")
        return f"{own if at else name}@version-{thing.version}"
    try:
        described = Describer().describe(thing)
    except Unidentified as error:
        raise UserError(
            f"{name} has no identity by which it is known tomorrow: {error}; give a class or a"
            " function whose source can be read, or cpsam.Versioned(..., version) with a text that"
            " you change whenever it changes"
        ) from None
    if isinstance(described, str):
        return described
    return f"{qualified_name(thing)}@{hash_json(described)[:HASH_LETTERS]}"


def qualified_name(thing: Any) -> str:
    """Returns the name of a class or a function with its module; "lambda" wherever one stands."""
    inner = thing.func if isinstance(thing, functools.partial) else thing
    if inner.__name__ == "<lambda>":
        return "lambda"
    return f"{inner.__module__}.{inner.__qualname__}".replace("<", "").replace(">", "")


def is_installed(thing: Any) -> bool:
    """Tells whether a class or a function is part of Python, of an installed package or of ours."""
    module = inspect.getmodule(thing)
    if module is None:
        return False
    if module.__name__.partition(".")[0] == "cpsam":
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ != "__main__"
    return is_installed_file(file)


class Describer:
    """Describes an object as plain data; each class and each function once."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def describe(self, thing: Any, name: str = "it") -> Any:
        """Returns plain data that differ wherever two objects differ.

        Args:
            thing: The object.
            name: What an error calls it.

        Raises:
            Unidentified: If that is not known of the object.
        """
        if isinstance(thing, PLAIN):
            return [type(thing).__name__, str(thing)]
        if isinstance(thing, list | tuple):
            return [type(thing).__name__, *map(self.describe, thing)]
        if isinstance(thing, set | frozenset):
            return ["set", *sorted(json.dumps(self.describe(each)) for each in thing)]
        if isinstance(thing, Mapping):
            return ["dict", *([self.describe(key), self.describe(thing[key])] for key in thing)]
        if isinstance(thing, functools.partial):
            return ["partial", *map(self.describe, (thing.func, thing.args, thing.keywords))]
        if isinstance(thing, ModuleType):
            return ["module", thing.__name__]
        if isinstance(thing, BuiltinFunctionType):
            return ["builtin", thing.__qualname__]
        if isinstance(thing, type | FunctionType):
            return self.describe_code(undecorated(thing))
        if isinstance(thing, functools._lru_cache_wrapper):
            return self.describe(thing.__wrapped__)
        if inspect.ismethod(thing) and isinstance(thing.__self__, type):
            return ["method", thing.__name__, self.describe(thing.__self__)]
        owner = getattr(thing, "__self__", None)
        raise Unidentified(
            f"{name} is an object of the class {type(thing).__name__}"
            if owner is None
            else f"{name} is a method of an object of the class {type(owner).__name__}"
        )

    def describe_code(self, thing: Any) -> Any:
        name = qualified_name(thing)
        if is_installed(thing) and "<" not in thing.__qualname__:
            return name
        if id(thing) in self.seen:
            return ["seen", name]
        self.seen.add(id(thing))
        if (source := source_of(thing)) is None:
            raise Unidentified(f"the source of {name} cannot be read")
        parts: list[Any] = [name, source]
        if isinstance(thing, type):
            parts += [self.describe(base) for base in thing.__bases__]
            for key, member in sorted(vars(thing).items()):
                for function in functions_of(member):
                    if function.__module__ == thing.__module__:
                        parts.append([key, *self.describe_uses(function)])
        else:
            parts += self.describe_uses(thing)
        return parts

    def describe_uses(self, function: FunctionType) -> list[Any]:
        """Describes the values that a function takes from outside its source."""
        found = [self.describe(function.__defaults__), self.describe(function.__kwdefaults__)]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            try:
                found.append([name, self.describe(cell.cell_contents, name)])
            except ValueError:  # not assigned yet
                found.append([name, "empty"])
        found += [[name, self.describe(value, name)] for name, value in global_values(function)]
        return found


def global_values(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields the global values that a function reads, by name; of a module, what it takes of it."""
    for name, attributes in sorted(global_reads(function.__code__).items()):
        if name not in function.__globals__:
            continue  # a builtin
        value = function.__globals__[name]
        if not isinstance(value, ModuleType):
            yield name, value
            continue
        for attribute in sorted(attributes):
            member = getattr(value, attribute, None)
            if isinstance(member, type | FunctionType) and not is_installed(member):
                yield f"{name}.{attribute}", member


def global_reads(code: CodeType) -> dict[str, set[str]]:
    """Returns the names of the globals that code reads, each with the attributes read of it."""
    reads: dict[str, set[str]] = {}
    last = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            last = instruction.argval
            reads.setdefault(last, set())
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and last:
            reads[last].add(instruction.argval)
        else:
            last = ""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            for name, attributes in global_reads(constant).items():
                reads.setdefault(name, set()).update(attributes)
    return reads
