"""Flags from frozen dataclasses, and the command as it was given."""

import io
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TypeVar

import tyro

from cpsam.errors import UserError

T = TypeVar("T")


def parse(
    kind: type[T], verb: str, words: list[str], description: str, default: T | None = None
) -> T:
    """Read the flags of a verb into the dataclass `kind`; nested fields are flags of their own
    name. What is not given is as in `default`.

    Raises:
        UserError: If the flags do not fit, in one line where tyro draws a box.
    """
    if "" in words:
        before = [verb, *words][words.index("")]
        raise UserError(f"{before}: the value after it is empty; leave both out, or name a value")
    box = io.StringIO()
    try:
        with (
            redirect_stderr(box),
            redirect_stdout(getattr(sys.stdout, "underneath", sys.stdout)),
        ):  # help has colours
            config = (tyro.conf.OmitArgPrefixes,)
            return tyro.cli(
                kind,
                prog=f"cpsam {verb}",
                args=words,
                description=description,
                config=config,
                default=default,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(
            f"{one_line(box.getvalue())} (cpsam {verb} --help lists the options)"
        ) from None


def command_line(verb: str, words: list[str]) -> str:
    """The command as it was given, but for how it prints; a script of one's own may have brought
    blocks and networks of its own.
    """
    script = sys.argv[0]
    program = (
        ["python", script]
        if script.endswith(".py") and not script.endswith("__main__.py")
        else ["cpsam"]
    )
    return shlex.join(
        [*program, verb, *(word for word in words if word not in ("--json", "--no-json"))]
    )


def one_line(box: str) -> str:
    """What stands in a box between its title and its second rule; tyro draws one with lines, or
    plainly where those cannot be shown.

    Example:
        >>> one_line("╭─ Error ────╮\\n│ lr must be │\\n│ above 0    │\\n│ ────────── │")
        'lr must be above 0'
    """
    rows = [row.strip(" │╭╮╰╯─-") for row in box.strip().splitlines()][1:]  # a rule becomes empty
    first = next((index for index, row in enumerate(rows) if row), 0)
    end = next((index for index, row in enumerate(rows) if not row and index > first), len(rows))
    return re.sub(r"^Error parsing [\w.]+: ", "", " ".join(rows[first:end])) or box.strip()
