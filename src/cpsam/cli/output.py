"""Makes standard output and error safe: no text acts on the terminal, and no locale fails."""

import codecs
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from cpsam.text import printable

# Replaces our own characters where the locale has none of them.
PLAIN = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{PLUS-MINUS SIGN}": "+-",
    }
)
HANDLER = "cpsam-plain"


def plain(error: UnicodeError) -> tuple[str, int]:
    """Replaces what an encoding lacks, for :func:`codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode(), error.end


class Printable:
    """Shows control characters as escapes in a text stream. Line breaks stay."""

    def __init__(self, stream: TextIO) -> None:
        self.underneath = stream

    def write(self, text: str) -> int:
        self.underneath.write(printable(text, keep="\n"))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.underneath, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Makes everything that is printed inside printable, also warnings of other packages."""
    codecs.register_error(HANDLER, plain)
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=HANDLER)
            if stream is not None:
                stack.enter_context(redirect(cast(TextIO, Printable(stream))))
        yield
