"""The identity of an object is the same tomorrow, and another one where the object is another."""

import functools
import linecache
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from cpsam.errors import UserError
from cpsam.run.objects import Versioned, identify, is_identity, unwrap

SOURCE = """
from torch import nn
import cpsam, torch

WIDTH = 4

def helper(channels):
    return channels * 2

class Base(nn.Module):
    def forward(self, x):
        return x

class Block(Base):
    def __init__(self, channels, *, ratio=2):
        super().__init__()
        self.conv = nn.Conv2d(channels, helper(channels), WIDTH)

    @property
    def double(self):
        return helper(2)

def make(channels, ratio=3):
    return Block(channels, ratio=ratio)

one, two = lambda c: Block(c), lambda c: Block(c, ratio=3)
nested = lambda c: [(lambda d: Block(d))(c)][0]

def closing(value):
    return lambda c: Block(c, ratio=value)
"""


def module(source: str = SOURCE) -> dict[str, Any]:
    """Runs a source as if it stood in a file, as a notebook does with a cell."""
    name = f"<cell {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "mine"}
    exec(compile(source, name, "exec"), namespace)
    return namespace


NAMES = ("Block", "make", "one", "two", "nested")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_source_has_the_same_identity(name: str) -> None:
    first, again = (identify(module()[name], "mine") for _ in range(2))
    assert first == again and is_identity(first)


def test_different_objects_have_different_identities() -> None:
    space = module()
    found = [identify(space[name], name) for name in NAMES]
    found += [identify(space["closing"](value), "mine") for value in (2, 3, "2", (2,))]
    found += [identify(functools.partial(space["make"], ratio=ratio), "mine") for ratio in (3, 4)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return channels * 2", "return channels * 3"),
        ("WIDTH = 4", "WIDTH = 5"),
        ("ratio=3):\n", "ratio=5):\n"),
        ("return helper(2)", "return helper(WIDTH)"),
        ("        return x\n", "        return -x\n"),
        ("    @property\n", ""),
        ("    def double", "    @torch.no_grad()\n    def double"),
    ],
)
def test_what_an_object_uses_is_part_of_it(old: str, new: str) -> None:
    """Functions that it calls, global values, default arguments, base classes, decorators."""
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert identify(module(changed)["make"], "mine") != identify(module()["make"], "mine")
    unused = SOURCE.replace("nested = ", "other = 3\nnested = ")
    assert identify(module(unused)["make"], "mine") == identify(module()["make"], "mine")


def test_an_installed_class_is_known_by_its_name() -> None:
    assert identify(nn.Identity, "mine") == "torch.nn.modules.linear.Identity"


NET = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (NET, "it is an object of the class Linear"),
        (lambda c: NET, "NET is an object of the class Linear"),
        (NET.forward, "it is a method of an object of the class Linear"),
        (eval("lambda c: nn.Identity()"), "the source of lambda cannot be read"),
        (functools.partial(nn.Identity, NET), "is an object of the class Linear"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_and_takes_a_version(
    thing: Callable[..., Any], why: str
) -> None:
    with pytest.raises(UserError, match=rf"^mine has no identity .*{why}; give .*cpsam.Versioned"):
        identify(thing, "mine")
    versions = [identify(Versioned(thing, version), "mine") for version in ("1", "2")]
    assert versions == ["mine@version-1", "mine@version-2"] and all(map(is_identity, versions))
    assert unwrap(Versioned(thing, "1")) is thing


def test_a_version_is_a_text() -> None:
    for version in ("", "  ", 2):
        with pytest.raises(UserError, match="version must be a text"):
            Versioned(NET, version)  # pyrefly: ignore
