"""Reads what the calls from Python have in common: recipes, paths, data, networks, progress."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from cpsam.config.task import Task
from cpsam.errors import UserError, unknown
from cpsam.run.events import Event, OnEvent, silent
from cpsam.run.objects import identify, unwrap

PathLike = str | Path


def refuse_unknown(call: Callable[..., Any], given: Iterable[str], *kinds: type) -> None:
    """Refuses an argument that neither a call nor a dataclass that it takes apart knows.

    Raises:
        UserError: If there is one. It names the nearest of all arguments.
    """
    known = {name for name in signature(call).parameters if name != "fields"}
    known |= {field.name for kind in kinds for field in fields(kind)}
    for name in given:
        if name not in known:
            raise unknown(f"argument of {call.__name__}", name, known)


def seeds_of(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """Returns the seeds; a number means so many of them, from 0."""
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        return tuple(range(seeds))
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise UserError(f"seeds must be a number of seeds, or a list of seeds; got {seeds!r}")
    return tuple(seeds)


def folder_of(folder: Any) -> Path:
    """Returns the folder of a call, which may be missing.

    Raises:
        UserError: If it is no path, or there is something else of this name.
    """
    if not isinstance(folder, str | Path):
        raise UserError(f"folder must be a path; got {folder!r}")
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise UserError(f"folder: {path} is not a folder")
    return path


def split_fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields of a task, and the others. A path may be a text."""
    tasks = {field.name: field for field in fields(Task)}
    paths = {name for name, field in tasks.items() if field.type == Path | None}
    of_task = {
        name: as_path(value) if name in paths else value
        for name, value in given.items()
        if name in tasks
    }
    return of_task, {name: value for name, value in given.items() if name not in tasks}


def as_path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def as_tuple(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def network_name(model: Any) -> str:
    """Returns the name of a network; the identity of a callable that makes one."""
    if isinstance(model, str):
        return model
    if isinstance(unwrap(model), nn.Module) or not callable(unwrap(model)):
        kind = type(unwrap(model)).__name__
        raise UserError(
            f"model must be a name, or a class or a function that makes a network; got a {kind}"
            f" object: give {kind}, or lambda: {kind}(...)"
        )
    return identify(model, "model")


@contextmanager
def shown(progress: bool, on_event: OnEvent | None, study: bool) -> Iterator[OnEvent]:
    """Yields a callable for events, which draws them if wanted and passes them on.

    Args:
        progress: Draw on a terminal and in a notebook, print lines elsewhere.
        on_event: Told every event too.
        study: Whether the events are those of a study, and not of one run.
    """

    if not progress:
        yield on_event or silent
        return
    from cpsam.progress import LiveStudy, ProgressBars  # rich is imported only where it draws

    with LiveStudy() if study else ProgressBars() as view:

        def tell(event: Event) -> None:
            view(event)
            if on_event is not None:
                on_event(event)

        yield tell
