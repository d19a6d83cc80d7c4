"""Text of others, such as the name of an arm, a path or a message, made safe for Markdown and for a
spreadsheet.

A terminal has :func:`cpsam.text.printable`, HTML has :func:`cpsam.report.svg.safe`. JSON is safe as
Python writes it.
"""

import re
import unicodedata

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


def markdown(text: object) -> str:
    """Returns the text as one line of Markdown in which nothing is active: no tag, link, picture,
    heading, emphasis or column.

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
    """Returns the value of a cell; text that a spreadsheet would take for a formula gets an
    apostrophe in front. Numbers stay numbers.

    A spreadsheet of another country may also split at a semicolon, so what follows one is treated
    like a cell.

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
    start = unicodedata.normalize("NFKC", text).lstrip(" \n" + NO_BREAK_SPACE)
    return start.startswith(FORMULA) and not NUMBER.fullmatch(text)
