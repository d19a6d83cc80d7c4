"""Rich's console, on which text is text."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from cpsam.cli.output import underneath
from cpsam.text import printable


class Terminal(Console):
    """A console that never reads a string as markup, and shows control characters in the form of
    escapes.

    It covers each string that is printed and each cell, header and title of a table. A
    ``rich.text.Text`` is taken as it is.

    Args:
        error: Writes to standard error instead of standard output.
        options: Of rich's console.
    """

    def __init__(self, *, error: bool = False, **options: Any) -> None:
        options.setdefault("file", underneath(sys.stderr if error else sys.stdout))
        super().__init__(**options)

    def render_str(self, text: str, **options: Any) -> Text:
        options |= {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(printable(text), **options)
