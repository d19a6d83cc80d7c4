"""The configuration of a run, `config.json`: whether a folder is of this run, or what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpsam.errors import UserError
from cpsam.files import read_json

CONFIG = "config.json"
SETTLED = "settled"  # The key of what a run computes with, which is no part of its identity.
MISSING = object()


def check_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the configuration that a folder has, or None if it has none yet.

    Raises:
        UserError: If the folder is of another configuration, or of something else.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"run folder {path} is a file")
    begun = read_json(path / CONFIG)
    if begun is None:
        check_empty(path)
        return None
    wanted = {name: value for name, value in plain(config).items() if name != SETTLED}
    there = {name: value for name, value in begun.items() if name != SETTLED}
    if (difference := first_difference(there, wanted)) is not None:
        name, old, new = difference
        raise UserError(
            f"run folder {path} holds a run of another configuration: {name} is {old} there and"
            f" {new} here"
        )
    return begun


def check_empty(path: Path) -> None:
    """Checks that a folder has no files but hidden ones."""
    entries = path.iterdir() if path.exists() else ()
    if others := sorted(entry.name for entry in entries if not entry.name.startswith(".")):
        raise UserError(
            f"run folder {path} holds other files ({others[0]!r} first) and no {CONFIG}; give an"
            " empty or a new folder"
        )


def first_difference(old: object, new: object, name: str = "") -> tuple[str, str, str] | None:
    """Returns the dotted name of the first value that differs, and both values as JSON.

    It is None if the two pieces of plain data are equal.

    Example:
        >>> first_difference({"recipe": {"lr": 0.3}}, {"recipe": {"lr": 0.1, "epochs": 3}})
        ('recipe.lr', '0.3', '0.1')
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            dotted = f"{name}.{key}" if name else key
            inner = first_difference(old.get(key, MISSING), new.get(key, MISSING), dotted)
            if inner is not None:
                return inner
        return None
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return None
    there, here = ("missing" if value is MISSING else json.dumps(value) for value in (old, new))
    return name, there, here


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns data as JSON gives it back: tuples as lists, keys as text."""
    return json.loads(json.dumps(config))
