"""Reads what the calls from Python have in common: recipes, paths, data, networks, progress."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.errors import UserError, unknown
from cpsam.run.events import Event, OnEvent, silent
from cpsam.run.objects import identify, unwrap

PathLike = str | Path


def recipe_with(recipe: Recipe | None, given: Mapping[str, Any]) -> Recipe:
    """Returns a recipe with some fields set.

    Raises:
        UserError: If a name is no field of a recipe, or a value breaks its rule.
    """
    names = [field.name for field in fields(Recipe)]
    for name in given:
        if name not in names:
            raise unknown("argument", name, names)
    return replace(recipe or Recipe(), **given)


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
            f"model must be a name, or a callable that makes a network; got a {kind}: give"
            " lambda: ..."
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
