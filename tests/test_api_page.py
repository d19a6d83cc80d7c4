"""The reference covers every public name."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import cpsam

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
DIRECTIVES = re.findall(r"^\.\. (?:auto|py:)(\w+):: (\S+)\n((?: +:.*\n)*)", PAGE, re.M)
PACKAGES = sorted(
    {target if kind == "module" else target.rpartition(".")[0] for kind, target, _ in DIRECTIVES}
)


def entries() -> Iterator[tuple[str, str]]:
    """Yields the module and the name of everything that a directive describes."""
    for kind, target, options in DIRECTIVES:
        if kind == "module":
            members, left_out = (
                words(option, options) for option in ("members", "exclude-members")
            )
            names = members or described(target)
            yield from ((target, name) for name in names if name not in left_out)
        else:
            module, _, name = target.rpartition(".")
            yield module, name


def value_of(module: ModuleType, name: str) -> object:
    """Returns what a public name stands for, also where a room has the same name."""
    value = getattr(module, name)
    if module is cpsam and isinstance(value, ModuleType):
        return getattr(import_module(cpsam.PUBLIC[name]), name)
    return value


def words(option: str, options: str) -> list[str]:
    found = re.search(rf"^ +:{option}:(.*)$", options, re.M)
    return re.findall(r"\w+", found[1]) if found else []


def described(package: str) -> list[str]:
    """Returns the members that autodoc finds by itself: classes and functions with a docstring."""
    module = import_module(package)
    public = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == package
    ]
    values = {name: getattr(module, name) for name in public if not name.startswith("_")}
    return [
        name
        for name, value in values.items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and value.__doc__
    ]


def test_the_reference_covers_every_public_name() -> None:
    """A name may stand under another package, as long as it is the same name and object."""
    covered = {(name, id(getattr(import_module(module), name))) for module, name in entries()}
    missing = [
        f"{package}.{name}"
        for package, module in ((package, import_module(package)) for package in PACKAGES)
        for name in getattr(module, "__all__", ())
        if (name, id(value_of(module, name))) not in covered
    ]
    assert "cpsam" in PACKAGES
    assert not missing, "docs/api.md lacks these names"
