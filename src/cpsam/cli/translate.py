"""Turns the arguments that the library names into the options of the command line."""

import re
from collections.abc import Mapping

from cpsam.cli.flags import Flag, option

# Arguments of the library that have another name among the flags.
ALIASES = {"root": "data_root", "skip": "skip_bad"}
QUOTED = r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\""
SAYS = r"must|needs?|takes?|is|are|has|of|and"  # what follows an argument that is a plain word


def with_options(message: str, flags: Mapping[str, Flag]) -> str:
    """Returns a message of the library with options in place of arguments.

    These are arguments: a name with an underscore; a name in backticks; a name before ``=``; and a
    plain word that begins the message or a part of it, before a verb. What stands in quotes or in
    a path is left as it is.

    Example:
        >>> from cpsam.cli.train import VERB
        >>> with_options("data_root is missing, and lr must be above 0", VERB.flags)
        '--data-root is missing, and --lr must be above 0'
        >>> with_options("stream=True needs 'data_root'; see /x/data_root", VERB.flags)
        "--stream needs 'data_root'; see /x/data_root"
    """
    names = {name: flag for name, flag in flags.items() if not flag.positional}
    names |= {name: names[flag] for name, flag in ALIASES.items() if flag in names}
    if not names:
        return message
    name = "|".join(sorted(names, key=len, reverse=True))
    long = "|".join(sorted((each for each in names if "_" in each), key=len, reverse=True)) or "-"
    pattern = re.compile(
        rf"{QUOTED}"
        rf"|`(?P<ticked>{name})`"
        rf"|(?<![\w/.:,-])(?P<set>{name})=(?P<value>[\w.]+)"
        rf"|(?<![\w/.:,-])(?P<long>{long})(?![\w/-]|\.\w)"
        rf"|(?:^|(?<=[:;] )|(?<=, )|(?<=and ))(?P<plain>{name})(?= (?:{SAYS})\b)"
    )

    def put(found: re.Match[str]) -> str:
        given = {key: text for key, text in found.groupdict().items() if text is not None}
        value = given.pop("value", None)
        if not given:
            return found[0]
        flag = names[next(iter(given.values()))]
        if flag.kind is bool and value in ("True", "False"):
            return flag.option if value == "True" else option(f"no_{flag.name}")
        return flag.option if value is None else f"{flag.option} {value}"

    return pattern.sub(put, message)
