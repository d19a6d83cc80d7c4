"""Lets one process at a time work on a run, or write the files of a study."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpsam.files import open_lock, remove_leftovers, try_lock

WRITING = ".writing"
POLL_SECONDS = 0.05


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Yields whether this process alone holds a lock file.

    The system releases the lock when the process ends, however it ends.

    Raises:
        UserError: If the file system has no locks.
        DataError: If the name belongs to something that is not a file.
        OSError: If it cannot be opened, or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(path) as lock:
        yield try_lock(lock)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Waits until no other process writes the files of the study, then keeps others waiting."""
    while True:
        with claim(folder / WRITING) as is_ours:
            if is_ours:
                remove_leftovers(folder)
                yield
                return
        time.sleep(POLL_SECONDS)
