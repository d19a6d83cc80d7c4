"""``cpsam list``: the names that other verbs take."""

import inspect
import json
from dataclasses import dataclass, field
from typing import Any

from cpsam.cli.help import wrap
from cpsam.cli.names import LIBRARIES, registry
from cpsam.cli.source import arguments, summary
from cpsam.cli.verb import Verb
from cpsam.errors import UserError, unknown

KINDS = ("attention", "placements", "models", "data", "presets")
SEVERAL = ("attention", "models")  # kinds after which more can be asked


@dataclass(frozen=True)
class ListRequest:
    kinds: tuple[str, ...] = field(default=KINDS, metadata={"positional": True, "choices": KINDS})
    """What to list: attention, placements, models, data, presets. The name of a block after
    attention lists its arguments. After models, timm or torchvision lists the models of that
    library.
    """
    json: bool = False
    """Print JSON."""


VERB = Verb(
    "list",
    ListRequest,
    "List the names of blocks, placements, models, data sets and presets.",
    {
        "the blocks, each in a sentence": "cpsam list attention",
        "the arguments of one block": "cpsam list attention cpsam",
        "the models of timm": "cpsam list models timm",
    },
    first=("json",),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    first, *names = asked.kinds
    if first in SEVERAL and names and not set(names) & set(KINDS):
        found = {first: {name: more(first, name) for name in names}}
        if first == "models":
            found = {first: {key: "" for each in found[first].values() for key in each}}
    else:
        for kind in asked.kinds:
            if kind not in KINDS:
                raise unknown("kind", kind, KINDS)
        if len(set(asked.kinds)) < len(asked.kinds):
            raise UserError(f"a kind is given more than once: {' '.join(asked.kinds)}")
        found = {kind: names_of(kind) for kind in asked.kinds}
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for kind, entries in found.items():
        print(f"{kind}:")
        width = max(map(len, entries))
        for name, what in entries.items():
            if isinstance(what, dict):
                print_block(name, what)
            else:
                print(f"  {name:{width}}  {what}".rstrip())


def names_of(kind: str) -> dict[str, str]:
    """Returns the names of a kind, each with what it is."""
    names = registry(kind)
    if kind == "attention":
        return {"none": "The bare network."} | names
    if kind == "models":
        libraries = {
            f"{library}/NAME": f"Any model of {library}: cpsam list models {library}"
            for library in LIBRARIES
        }
        return dict.fromkeys(names, "For small images.") | libraries
    return names


def more(kind: str, name: str) -> dict[str, Any]:
    return describe(name) if kind == "attention" else models(name)


def describe(name: str) -> dict[str, Any]:
    """Returns what a block is, and its arguments with their defaults.

    Raises:
        UserError: If there is no such block.
    """
    if name not in (names := registry("attention")):
        raise unknown("attention", name, names)
    from cpsam.attention import ATTENTION, argument_names

    block = ATTENTION[name]
    said = dict(arguments(inspect.getdoc(block) or ""))
    parameters = inspect.signature(block).parameters
    entries: dict[str, dict[str, Any]] = {}
    for argument in argument_names(block):
        if argument != "in_channels":
            entries[argument] = {"about": summary(said.get(argument, ""))}
            if (default := parameters[argument].default) is not inspect.Parameter.empty:
                entries[argument]["default"] = default
    return {"about": summary(block.__doc__), "arguments": entries}


def models(library: str) -> dict[str, str]:
    """Returns the names of all models of a library, also those that we add.

    Raises:
        UserError: If there is no such library.
    """
    if library not in LIBRARIES:
        raise unknown("library of models", library, LIBRARIES)
    import timm
    import torchvision

    import cpsam.models  # noqa: F401  # adds models to timm

    if library == "timm":
        return {f"timm/{name}": "" for name in timm.list_models()}
    names = torchvision.models.list_models(module=torchvision.models)
    return {f"torchvision/{name}": "" for name in names}


def print_block(name: str, block: dict[str, Any]) -> None:
    print("\n".join([f"  {name}", *wrap(block["about"], 4)]))
    words = {argument: given(argument, entry) for argument, entry in block["arguments"].items()}
    for argument, entry in block["arguments"].items():
        print("\n".join(["", f"    {words[argument]}", *wrap(entry["about"], 8)]))
    if words:
        print(f"\n  as in --attention {name}:{next(iter(words.values()))}")


def given(argument: str, entry: dict[str, Any]) -> str:
    """Returns an argument as it is given on the command line."""
    default = entry.get("default")
    return f"{argument}={'VALUE' if default is None else default}"
