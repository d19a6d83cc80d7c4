"""Escapes names, paths and messages for HTML, Markdown and a spreadsheet.

A terminal has :func:`cpsam.text.printable`. JSON is safe as Python writes it.
"""

import re
import unicodedata

from markupsafe import Markup, escape

from cpsam.text import NO_BREAK_SPACE, printable

# What Markdown leaves alone: an underscore inside a word, and an interval such as [+0.10, +0.52]
# that is no link.
HARMLESS = r"(?<=[^\W_])_(?=[^\W_])|\[[-+\N{MINUS SIGN}\d., ]+\](?![(\[:])"
ACTIVE = r"[\\`*_\[\]<>|~&#$]|!(?=\[)|:(?=//)|(?<=www)\.|@(?=\S)"
MARKDOWN = re.compile(rf"({HARMLESS})|({ACTIVE})", re.IGNORECASE)
# a list, a rule, or a heading that is underlined
BLOCK = re.compile(r"^(?:([-+=]+)(?=\s|$)|(\d+)([.)])(?=\s|$))")

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?( \[[-+\d.e, ]+\])?", re.IGNORECASE)
FORMULA = tuple("=+-@\t\r")


def html(value: object) -> Markup:
    """Returns markup as it is, and everything else as escaped text that prints.

    Example:
        >>> html("<b>\\x1b")
        Markup('&lt;b&gt;\\\\x1b')
    """
    return value if isinstance(value, Markup) else escape(printable(str(value)))


def markdown(text: object) -> str:
    """Returns the text as one line of Markdown in which nothing is active.

    No character of it starts a tag, link, picture, heading, emphasis or column.

    Example:
        >>> markdown("# <b>![x](y) a_b|c +0.52 [+0.10, +0.94]")
        '\\\\# \\\\<b\\\\>\\\\!\\\\[x\\\\](y) a_b\\\\|c +0.52 [+0.10, +0.94]'
    """
    line = printable(" ".join(str(text).split()))
    escaped = MARKDOWN.sub(lambda found: found[1] or f"\\{found[2]}", line)
    return BLOCK.sub(
        lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", escaped
    )


def markdown_code(text: str) -> str:
    """Returns a block of code whose fence is longer than every run of backticks in the text."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}\n{printable(text)}\n{fence}"


def spreadsheet(value: object) -> object:
    """Returns the value of a cell. Text that looks like a formula gets an apostrophe in front.

    Numbers stay numbers. Some countries' spreadsheets split at a semicolon, so the text after one
    is treated like a cell.

    Example:
        >>> spreadsheet("=cmd"), spreadsheet("-0.5"), spreadsheet(-0.5), spreadsheet(None)
        ("'=cmd", '-0.5', -0.5, '')
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    return ";".join(
        f"'{part}" if is_formula(part) else part for part in printable(value, keep="\n").split(";")
    )


def is_formula(text: str) -> bool:
    """Returns whether a spreadsheet would take the text for a formula."""
    start = unicodedata.normalize("NFKC", text).lstrip(" \n" + NO_BREAK_SPACE)
    return start.startswith(FORMULA) and not NUMBER.fullmatch(text)
