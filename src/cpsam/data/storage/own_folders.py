"""Recognises folders that this package writes (cache, runs, studies), to skip them among images."""

from collections.abc import Collection

from cpsam.data.storage.cache_folder import ENTRY

MARKS = ({"config.json", "environment.json"}, {"plan.json", ".writing"})  # a run, a study


def is_own(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is a run, a study or a cache.

    Example:
        >>> is_own(["folder-0123456789abcdef01234567.decoded"]), is_own(["config.json"])
        (True, False)
    """
    return any(mark.issubset(names) for mark in MARKS) or any(map(ENTRY.fullmatch, names))
