"""The names that a person can type, known before torch is imported.

Importing torch and timm takes seconds, and a typo should be answered at once. So the names of
blocks, placements, networks and data sets are read from the source of their registries. Where a
registry is already imported, it answers itself.
"""

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from cpsam.cli.source import Source, summary
from cpsam.config.study import NamedArm
from cpsam.config.task import Task
from cpsam.errors import unknown

REGISTRIES = {
    "attention": ("cpsam.attention", "ATTENTION"),
    "placements": ("cpsam.insert.placement", "PLACEMENTS"),
    "models": ("cpsam.models.networks", "NETWORKS"),
    "data": ("cpsam.data.load", "DATASETS"),
    "presets": ("cpsam.config.presets", "PRESETS"),
}
LIBRARIES = ("timm", "torchvision")
OWN_TIMM_MODELS = ("cpsam_", "nl_", "gc_", "cifar_")  # how the names begin that we add to timm's
REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def registry(kind: str) -> dict[str, str]:
    """Returns the names of a kind, each with the first paragraph of its docstring."""
    module, name = REGISTRIES[kind]
    if module not in sys.modules and (found := Source.of(module).entries(name)) is not None:
        return found
    entries = getattr(import_module(module), name)
    documented = entries if isinstance(entries, dict) else dict.fromkeys(entries)
    return {key: summary(value.__doc__ if value else None) for key, value in documented.items()}


def library_models(library: str) -> frozenset[str]:
    """Returns the names of the models that the source of timm or torchvision registers."""
    spec = find_spec(library)
    folder = Path(spec.origin or "").parent / "models" if spec else Path()
    files = folder.glob("*.py") if spec else ()
    return frozenset(
        name for file in files for name in REGISTERED.findall(file.read_text("utf-8", "replace"))
    )


def check_names(task: Task, arms: Iterable[str | NamedArm]) -> None:
    """Refuses an unknown name of a data set, a network, a block or a placement.

    The library checks the same names, and more, once torch is imported.

    Raises:
        UserError: If a name is unknown. It names the nearest one.
    """
    check_one("data set", task.data, registry("data"))
    check_model(task.model)
    blocks = {"none", *registry("attention")}
    for arm in arms:
        name = arm.attention if isinstance(arm, NamedArm) else arm.partition(":")[0]
        check_one("attention", name, blocks)
    if REGISTRIES["placements"][0] not in sys.modules:
        placements = registry("placements")
        for place in task.at:
            if is_misspelt(place, placements):
                raise unknown("place", place, placements)


def check_one(kind: str, name: str, names: Iterable[str]) -> None:
    if name.lower() not in names and name not in names:
        raise unknown(kind, name, names)


def check_model(name: str) -> None:
    library, slash, rest = name.partition("/")
    if "timm" in sys.modules:
        return  # a script may have added models of its own
    if slash and library in LIBRARIES and rest:
        names = library_models(library)
        ours = library == "timm" and rest.startswith(OWN_TIMM_MODELS)
        if names and not ours and rest.partition(".")[0] not in names:
            raise unknown(f"{library} model", rest, names)
        return
    elsewhere = [f"{other}/{name}" for other in LIBRARIES if name in library_models(other)]
    wholes = [f"{other}/NAME" for other in LIBRARIES]
    own = registry("models")
    if name.lower() not in own:
        raise unknown("model", name, [*own, *elsewhere, *wholes])


def is_misspelt(place: str, placements: Iterable[str]) -> bool:
    """Whether a place is nearly a placement, and so hardly a path of modules."""
    if place.lower() in placements or "." in place or "*" in place:
        return False
    return bool(get_close_matches(place, placements, n=1, cutoff=0.75))
