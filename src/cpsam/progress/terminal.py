"""Rich's console, on which text is text."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from cpsam.text import printable


class Terminal(Console):
    """Prints each string as it is: without markup, and with control characters as escapes.

    The same holds for each cell, header and title of a table. A ``rich.text.Text`` is not changed.

    Args:
        error: Writes to standard error instead of standard output.
        options: Of rich's console.
    """

    def __init__(self, *, error: bool = False, **options: Any) -> None:
        stream = sys.stderr if error else sys.stdout
        # The command line wraps its streams; rich needs the stream below to see a terminal.
        options.setdefault("file", getattr(stream, "underneath", stream))
        super().__init__(**options)

    def render_str(self, text: str, **options: Any) -> Text:
        options |= {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(printable(text), **options)
