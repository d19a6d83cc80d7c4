"""Reads the words of a command into the values of flags."""

import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from cpsam.cli.flags import Flag, option
from cpsam.errors import UserError, nearest

HELP = ("-h", "--help", "--help-all")
RENAMED = {"recipe": "preset"}
DEVICES = ("device", "devices", "gpu", "gpus", "cuda")
DEVICE_HINT = (
    "a GPU is used if there is one; the environment variable CUDA_VISIBLE_DEVICES hides it"
)


def parse(flags: Mapping[str, Flag], words: list[str]) -> dict[str, Any]:
    """Returns the values that are given, by the names of their fields.

    A flag with several values takes all words up to the next flag, and splits each at its commas.
    A flag that is given twice has its last value.

    Raises:
        UserError: If a flag is unknown, a value is missing or of another kind, or a flag that must
            be given is not.
    """
    given: dict[str, Any] = {}
    places = [flag for flag in flags.values() if flag.positional]
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not is_flag(word):
            if word.startswith("-"):
                raise unknown_option(word, flags)
            if not places:
                raise UserError(f"{word!r} belongs to no option")
            flag = places.pop(0)
            given[flag.name] = flag.read(split_all([word, *take(rest)]) if flag.many else [word])
            continue
        name, equals, value = word.partition("=")
        flag, on = find_flag(name, flags)
        if flag.kind is bool:
            if equals:
                raise UserError(f"{name} takes no value; got {value!r}")
            given[flag.name] = on
        elif flag.many:
            given[flag.name] = flag.read(split_all([value] if equals else take(rest)))
        elif equals or (rest and not is_flag(rest[0])):
            given[flag.name] = flag.read([value if equals else rest.pop(0)])
        else:
            raise UserError(f"{name} needs a value: {flag.option} {flag.value}")
    for flag in flags.values():
        if flag.needed and flag.name not in given:
            shown = flag.value if flag.positional else f"{flag.option} {flag.value}"
            what = flag.text.split(". ")[0].rstrip(".")
            raise UserError(f"{shown} is missing: {what[0].lower()}{what[1:]}")
    return given


def is_flag(word: str) -> bool:
    return word.startswith("--") or word == "-h"


def take(rest: list[str]) -> list[str]:
    """Removes and returns the words before the next flag."""
    end = next((index for index, word in enumerate(rest) if is_flag(word)), len(rest))
    words = rest[:end]
    del rest[:end]
    return words


def split_all(words: list[str]) -> list[str]:
    return [part for word in words for part in split(word)]


def split(word: str) -> list[str]:
    """Splits a word at its commas. The arguments of a block stay with it.

    After a colon, a comma before ``word=`` belongs to the block.

    Example:
        >>> split("none,cpsam:fusion=sum,reduction=8,eca")
        ['none', 'cpsam:fusion=sum,reduction=8', 'eca']
    """
    parts: list[str] = []
    for part in word.split(","):
        if parts and ":" in parts[-1] and re.match(r"\w+=", part):
            parts[-1] += f",{part}"
        elif part.strip():
            parts.append(part.strip())
    return parts


def find_flag(given: str, flags: Mapping[str, Flag]) -> tuple[Flag, bool]:
    """Returns the flag of this name, and whether it is switched on.

    Raises:
        UserError: If there is none. It names the nearest one.
    """
    name = given.lstrip("-").replace("-", "_")
    if name in RENAMED and RENAMED[name] in flags:
        print(f"cpsam: {given} is called {option(RENAMED[name])} now", file=sys.stderr)
        name = RENAMED[name]
    options = {key: flag for key, flag in flags.items() if not flag.positional}
    if name in options:
        return options[name], True
    bare = name.removeprefix("no_")
    if bare in options and options[bare].kind is bool:
        return options[bare], False
    raise unknown_option(given, flags)


def unknown_option(given: str, flags: Mapping[str, Flag]) -> UserError:
    """Returns the error for an option that there is not; it names the nearest one."""
    name = given.lstrip("-").replace("-", "_")
    near = nearest(name, [key for key, flag in flags.items() if not flag.positional])
    hint = f": did you mean {option(near[0])}?" if near else ""
    if name in DEVICES:
        hint = f": {DEVICE_HINT}"
    return UserError(f"unknown option {given}{hint}")


def command_line(verb: str, words: list[str]) -> str:
    """Returns the command as it was given, without `--json`, which changes only the printing.

    A script of one's own is named, because it may add blocks and networks.
    """
    script = sys.argv[0]
    program = (
        ["python", script]
        if script.endswith(".py") and not script.endswith("__main__.py")
        else ["cpsam"]
    )
    return shlex.join(
        [*program, verb, *(word for word in words if word not in ("--json", "--no-json"))]
    )
