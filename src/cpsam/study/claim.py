"""Lets one process at a time work on a run, or write the files of a study."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpsam.files import remove_leftovers
from cpsam.locks import acquire

WRITING = ".writing"


@contextmanager
def claim(path: Path, seconds: float = 0) -> Iterator[bool]:
    """Yields whether this process alone holds a lock file; waits for it so many seconds.

    Raises:
        UserError: If the file system has no locks.
        DataError: If the name belongs to something that is not a file.
        OSError: If it cannot be opened, or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with acquire(path, seconds) as lock:
        yield lock.held


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Waits until no other process writes the files of the study, then keeps others waiting."""
    with claim(folder / WRITING, math.inf):
        remove_leftovers(folder)
        yield
