"""Keeps messages apart from the run: a closed standard error changes no result and no exit code."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any


class Messages(io.TextIOBase):
    """Writes to standard error and never fails. Once it is closed or full, it stays silent.

    Args:
        stream: Where the messages go. None where there is no standard error.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if self.stream is not None:
            try:
                self.stream.write(text)
            except (OSError, ValueError):
                self.give_up()
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            try:
                self.stream.flush()
            except (OSError, ValueError):
                self.give_up()

    def give_up(self) -> None:
        stream, self.stream = self.stream, None
        # Python flushes it again at exit, and a failure there would change the exit code.
        if stream is sys.__stderr__:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def isatty(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("there is no standard error")
        return self.stream.fileno()

    def reconfigure(self, **options: Any) -> None:
        if hasattr(self.stream, "reconfigure"):
            self.stream.reconfigure(**options)

    @property
    def encoding(self) -> str:  # pyrefly: ignore
        return getattr(self.stream, "encoding", None) or "utf-8"


@contextmanager
def safe_messages() -> Iterator[None]:
    """Lets no write to standard error fail inside."""
    with redirect_stderr(Messages(sys.stderr)):
        yield


def fill_closed_descriptors() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise a file of the run would get their number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number, which is this one.
