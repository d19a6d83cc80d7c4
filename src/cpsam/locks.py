"""Locks a file, so that one process at a time works on something; the others wait or are told."""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cpsam.errors import DataError, UserError

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Lock:
    """A lock file.

    Attributes:
        file: The open file.
        path: Its name.
        held: Whether this process holds the lock.
    """

    file: IO[str]
    path: Path
    held: bool

    @property
    def holder(self) -> str:
        """Who holds the lock, as :meth:`sign` wrote it, without characters that do not print."""
        self.file.seek(0)
        return "".join(filter(str.isprintable, self.file.read(200)))

    def sign(self, holder: str) -> None:
        """Writes into the file who holds the lock."""
        self.file.truncate(0)
        self.file.write(f"{holder}\n")
        self.file.flush()

    @property
    def in_place(self) -> bool:
        """Whether the path still names this file: somebody may have removed or replaced it."""
        try:
            there = self.path.lstat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self.file.fileno()))


@contextmanager
def acquire(path: Path, seconds: float = 0) -> Iterator[Lock]:
    """Acquires a lock file, which is created if it is missing. See `held` of what it yields.

    The system releases the lock when the process ends, however it ends.

    Args:
        path: The file. A link is refused.
        seconds: How long to wait while another process holds it.

    Raises:
        OSError: If it cannot be opened.
        DataError: If it is not a regular file.
        UserError: If the file system has no locks.
    """
    end = time.monotonic() + seconds
    while True:
        with open_lock(path) as file:
            lock = Lock(file, path, try_lock(file))
            # A holder before may have removed the file when it ended.
            if (lock.held and lock.in_place) or (not lock.held and time.monotonic() >= end):
                yield lock
                return
        if not lock.held:
            time.sleep(POLL_SECONDS)


def open_lock(path: Path) -> IO[str]:
    """Opens a lock file for reading and writing; creates it if it is missing."""
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
    )
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: must be a regular file, because it is a lock")
    return open(path, "r+", errors="replace", opener=lambda *_: descriptor)  # Its name is the path.


def try_lock(file: IO[str]) -> bool:
    """Acquires an exclusive lock without waiting; returns whether this process holds it now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name}: the file system does not support locks ({error.strerror}); choose a"
            " folder on another one"
        ) from error
    return True
