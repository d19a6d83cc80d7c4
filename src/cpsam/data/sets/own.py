"""Recognises the folders that this package writes, the cache, runs and studies, so that they may
lie among images.
"""

import re
from collections.abc import Collection

from cpsam.data.storage.cache import cache_folder

MARKS = ({"config.json", "environment.json"}, {"plan.json", ".writing"})  # a run, a study
CACHED = re.compile(r"\.?.+-[0-9a-f]{24}(\.safetensors|\.arrow|\.lock|-[0-9a-f]{8})")


def is_own(names: Collection[str]) -> bool:
    """Whether a folder in which there are these names is a run, a study or a cache.

    Example:
        >>> is_own(["folder-0123456789abcdef01234567.safetensors"]), is_own(["config.json"])
        (True, False)
    """
    return any(mark.issubset(names) for mark in MARKS) or any(map(CACHED.fullmatch, names))


def cache_identity() -> tuple[int, int] | None:
    """Returns device and inode of the cache, or None if there is none yet."""
    try:
        status = cache_folder().stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
