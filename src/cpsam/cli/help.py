"""The help of a verb: examples, the flags that people need first, and the others on request."""

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING
from typing import Any

from cpsam.cli.flags import Flag, option
from cpsam.cli.translate import with_options
from cpsam.cli.verb import Verb
from cpsam.config.recipe import Recipe

WIDEST = 100
INDENT = 6


def help_text(verb: Verb[Any], everything: bool = False) -> str:
    """Returns what ``cpsam VERB --help`` prints; with everything, what ``--help-all`` prints."""
    named = [flag for flag in verb.flags.values() if flag.positional]
    words = [flag.value if flag.needed else f"[{flag.value}]" for flag in named]
    lines = [f"usage: {' '.join(['cpsam', verb.name, *words, '[OPTIONS]'])}", ""]
    lines += [*wrap(verb.about), "", "Examples:"]
    for what, command in verb.examples.items():
        lines += ["", f"  # {what}", f"  {command}"]
    lines += section("Words", named, verb)
    named += [verb.flags[name] for name in verb.first]
    lines += section("Options", [verb.flags[name] for name in verb.first], verb)
    others = [flag for flag in verb.flags.values() if flag not in named]
    if everything:
        lines += section("More options", others, verb)
    elif others:
        lines += ["", f"{len(others)} more options: cpsam {verb.name} --help-all"]
    return "\n".join(lines) + "\n"


def section(title: str, flags: Iterable[Flag], verb: Verb[Any]) -> list[str]:
    lines = [line for flag in flags for line in flag_lines(flag, verb)]
    return ["", f"{title}:", *lines] if lines else []


def flag_lines(flag: Flag, verb: Verb[Any]) -> list[str]:
    head = flag.option
    if flag.kind is bool and flag.default is not False:
        head = f"{flag.option}, {option('no_' + flag.name)}"
    elif not flag.positional:
        head = f"{flag.option} {flag.value}".rstrip()
    return ["", f"  {head}", *wrap(described(flag, verb), INDENT)]


def described(flag: Flag, verb: Verb[Any]) -> str:
    """Returns what a flag is for, and its default."""
    text = with_options(flag.text, verb.flags)
    if flag.needed:
        return f"{text} Needed."
    if "Default:" in text or not (default := shown(verb.defaults.get(flag.name, flag.default))):
        return text
    preset = "preset" in verb.flags and (flag.owner is Recipe or flag.name in ("model", "at"))
    return f"{text} Default{' without a preset' * preset}: {default}."


def shown(value: object) -> str:
    """Returns a default as a person would type it; "" where there is nothing to type."""
    if value is None or value is False or value is MISSING:
        return ""
    if value is True:
        return "on"
    if isinstance(value, tuple):
        return " ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def wrap(text: str, indent: int = 0) -> list[str]:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    space = " " * indent
    return textwrap.wrap(text, width, initial_indent=space, subsequent_indent=space)
