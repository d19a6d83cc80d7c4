"""Finds names regardless of case, so that a run has one name however it was typed."""

from collections.abc import Iterable
from dataclasses import replace

from cpsam.config.task import Task
from cpsam.data import DATASETS
from cpsam.insert import PLACEMENTS
from cpsam.models.networks import NETWORKS


def find_name(given: str, known: Iterable[str]) -> str:
    """Returns the one known name that differs in nothing but case; else the name as it is.

    Example:
        >>> find_name("CPSAM", ["cpsam", "eca"]), find_name("cpsan", ["cpsam"])
        ('cpsam', 'cpsan')
    """
    names = list(known)
    if given in names:
        return given
    found = [name for name in names if name.casefold() == given.casefold()]
    return found[0] if len(found) == 1 else given


def with_known_names(task: Task) -> Task:
    """Returns a task with the names of its data, its network and its places as they are known."""
    return replace(
        task,
        data=find_name(task.data, DATASETS),
        model=find_name(task.model, NETWORKS),
        at=tuple(find_name(place, PLACEMENTS) for place in task.at),
    )
