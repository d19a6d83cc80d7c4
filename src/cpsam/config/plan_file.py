"""A study from a file: ``PLAN.toml``. Every key is checked, so that a slip of the pen is not an
option left at its default.

    name = "blocks"
    seeds = [0, 1, 2, 3, 4, 5]
    threads = 1

    [primary]
    arm = "cpsam"
    reference = "non_local"
    setting = "before-last"

    [task]
    data = "cifar100"
    validation = 0.1
    model = "resnet20"

    [recipe]
    epochs = 8
    lr = 0.3

    [arm.wide]
    attention = "cpsam"
    arguments = { reduction = 4 }

    [[setting]]
    name = "before-last"
    at = ["before-last"]
    arms = ["none", "non_local", "cpsam", "wide"]

    [[setting]]
    name = "early"
    at = ["early"]
    arms = ["none", "non_local", "cpsam"]

Further keys: ``budget`` ("epochs" or "time"), ``control`` (false leaves the parameter-matched
control out), any number of ``[[contrast]]`` like ``[primary]``, and in an arm a ``recipe`` of its
own. What ``[task]`` says holds in all settings, and a setting may say it otherwise.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study, Task, check_list
from cpsam.config.transform import Transform
from cpsam.errors import DataError, UserError, unknown
from cpsam.files import read_file
from cpsam.text import shorten

PLAN_BYTES = 2**24
MOST_LEVELS = 8  # of tables and lists in a plan
MOST_LETTERS = 1000  # of a text in a plan
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OPTIONAL = ("threads", "budget", "control", "primary", "task", "recipe", "arm", "contrast")
# Where the data lies and how many processes load it is a matter of the machine, not of the study.
OF_THE_MACHINE = ("data_root", "workers")
KINDS: dict[str, tuple[type, ...]] = {
    "data": (str,),
    "image_size": (int,),
    "validation": (float, int),
    "model": (str,),
    "weights": (str,),
    "at": (list,),
    "stream": (bool,),
    "transform": (dict,),
    "skip_bad": (str,),
    "image_column": (str,),
    "label_column": (str,),
}
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}

Table = Mapping[str, Any]


def read_plan(path: Path, *, data_root: Path | None = None, workers: int | None = None) -> Study:
    """The study that a file describes.

    Args:
        path: The file. Paths in it start from its folder.
        data_root: The folder of data sets on this machine.
        workers: Processes that load streamed images.

    Raises:
        UserError: If the file is missing or is not TOML, a key is unknown or missing, or a value
            does not fit.
    """
    try:
        # some editors begin with a mark
        content = tomllib.loads(read_file(path, PLAN_BYTES).decode("utf-8-sig"))
    except DataError as error:
        raise UserError(f"plan {error}") from error
    except OSError as error:
        raise UserError(f"plan {path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        raise UserError(f"plan {path} is not TOML: {error}") from error
    try:
        check_values(content)
        return plan_of(content, path.parent, {"data_root": data_root, "workers": workers})
    except UserError as error:
        raise UserError(f"plan {path}: {error}") from error


def check_values(content: Table) -> None:
    """Refuses what no plan takes: dates, long texts, zero bytes, numbers that are not finite or
    have more than 64 bits, deep nesting.

    Raises:
        UserError: If there is such a value.
    """
    level: list[tuple[str, Any]] = list(content.items())
    for _ in range(MOST_LEVELS):
        for key, value in level:
            if not isinstance(value, str | int | float | list | dict):
                raise UserError(
                    f"{key} must be text, a number, true or false, a list or a table; got {value}"
                )
            for name, text in (("a key", key), (key, value)):
                if isinstance(text, str) and len(text) > MOST_LETTERS:
                    raise UserError(
                        f"{name} must have at most {MOST_LETTERS:,} letters; got {len(text):,},"
                        f" {shorten(text)}"
                    )
                if isinstance(text, str) and "\0" in text:
                    raise UserError(f"{name} must not hold a zero byte; got {shorten(text)}")
            if isinstance(value, int | float) and not -(2**63) <= value < 2**63:
                raise UserError(
                    f"{key} must be a finite number of at most 64 bits; got {shorten(value)}"
                )
        level = [pair for key, value in level for pair in children(key, value)]
    if level:
        raise UserError(
            f"{level[0][0]} is nested too deeply: a plan has at most {MOST_LEVELS} levels"
        )


def children(key: str, value: object) -> Iterable[tuple[str, Any]]:
    """Yields what a table or a list holds, each value with the key that it is under."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from ((key, inner) for inner in value)


def plan_of(content: Table, folder: Path, machine: Table) -> Study:
    check_keys("key", content, ("name", "seeds", "setting"), OPTIONAL)
    name = expect("name", content["name"], str)
    if not NAME.fullmatch(name):
        raise UserError(
            f"name must be letters, digits, '.', '_' or '-', 64 at most; got {shorten(name)}"
        )
    arms = {
        arm: named_arm(arm, table)
        for arm, table in expect("arm", content.get("arm", {}), dict).items()
    }
    shared = expect("task", content.get("task", {}), dict)
    settings = tuple(
        setting(table, shared, arms, folder, machine)
        for table in expect("setting", content["setting"], list)
    )
    # before they are looked for by name
    check_list("settings", tuple(place.name for place in settings))
    if idle := [
        name for name, arm in arms.items() if not any(arm in place.arms for place in settings)
    ]:
        named = dict.fromkeys(
            arm if isinstance(arm, str) else arm.name for place in settings for arm in place.arms
        )
        raise UserError(f"arm {idle[0]} is in no setting; these are: {', '.join(named)}")
    primary = contrast("primary", content["primary"], settings) if "primary" in content else None
    secondary = tuple(
        contrast("contrast", table, settings)
        for table in expect("contrast", content.get("contrast", []), list)
    )
    if repeated := [
        question for question in secondary if question == primary or secondary.count(question) > 1
    ]:
        raise UserError(
            f"contrast {repeated[0].arm} against {repeated[0].reference} in {repeated[0].setting}"
            " is asked twice"
        )
    return Study(
        name,
        settings,
        tuple(expect("seeds", content["seeds"], list)),
        recipe(expect("recipe", content.get("recipe", {}), dict)),
        expect("threads", content.get("threads", 1), int),
        primary,
        secondary,
        expect("budget", content.get("budget", "epochs"), str),
        expect("control", content.get("control", True), bool),
    )


def setting(
    table: Any, shared: Table, arms: Mapping[str, NamedArm], folder: Path, machine: Table
) -> Setting:
    table = expect("setting", table, dict)
    check_keys("key of a setting", table, ("name", "arms"), KINDS)
    name = expect("name of a setting", table["name"], str)
    if not NAME.fullmatch(name):
        raise UserError(
            "name of a setting must be letters, digits, '.', '_' or '-', 64 at most; got"
            f" {shorten(name)}"
        )
    words = [
        expect(f"arms of {name}", arm, str)
        for arm in expect(f"arms of {name}", table["arms"], list)
    ]
    own = {key: value for key, value in table.items() if key in KINDS}
    return Setting(
        name,
        task({**shared, **own}, folder, machine),
        tuple(arms.get(word, word) for word in words),
    )


def task(table: Table, folder: Path, machine: Table) -> Task:
    check_keys("key of a task", table, (), KINDS)
    values = {key: expect(key, value, *KINDS[key]) for key, value in table.items()}
    for key in ("weights", "skip_bad"):
        if key in values:
            values[key] = folder / values[key]
    if "at" in values:
        values["at"] = tuple(expect("at", place, str) for place in values["at"])
    if "transform" in values:
        values["transform"] = transform(values["transform"])
    return Task(**values, **machine)


def transform(table: Table) -> Transform:
    kinds = {
        field.name: (float, int) if isinstance(field.default, float) else (type(field.default),)
        for field in fields(Transform)
    }
    check_keys("key of a transform", table, (), kinds)
    return Transform(**{key: expect(key, value, *kinds[key]) for key, value in table.items()})


def recipe(table: Table) -> Recipe:
    check_keys("key of a recipe", table, (), [field.name for field in fields(Recipe)])
    return Recipe(**table)


def named_arm(name: str, table: Any) -> NamedArm:
    table = expect(f"arm.{name}", table, dict)
    check_keys(f"key of arm {name}", table, ("attention",), ("arguments", "recipe"))
    own = expect(f"recipe of arm {name}", table.get("recipe", {}), dict)
    check_keys(
        f"key of the recipe of arm {name}", own, (), [field.name for field in fields(Recipe)]
    )
    attention = expect(f"attention of arm {name}", table["attention"], str)
    return NamedArm(
        name, attention, expect(f"arguments of arm {name}", table.get("arguments", {}), dict), own
    )


def contrast(what: str, table: Any, settings: Iterable[Setting]) -> Contrast:
    table = expect(what, table, dict)
    names = [setting.name for setting in settings]
    only = {"setting": names[0]} if len(names) == 1 else {}
    table = {**only, **table}
    check_keys(f"key of {what}", table, ("arm", "reference", "setting"), ())
    if table["setting"] not in names:
        raise unknown(f"setting of {what}", table["setting"], names)
    return Contrast(
        *(expect(f"{key} of {what}", table[key], str) for key in ("arm", "reference", "setting"))
    )


def check_keys(kind: str, table: Table, needed: Iterable[str], allowed: Iterable[str]) -> None:
    needed = tuple(needed)
    for key in table:
        if key in OF_THE_MACHINE:
            raise UserError(
                f"{key} is of the machine, not of the plan: give --{key.replace('_', '-')}"
            )
        if key not in {*needed, *allowed}:
            raise unknown(kind, key, {*needed, *allowed})
    for key in needed:
        if key not in table:
            raise UserError(f"{kind} {key!r} is missing")


def expect(name: str, value: Any, *kinds: type) -> Any:
    """The value, if it is of one of these kinds; true is no number."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"{name} must be {WORDS[kinds[0]]}; got {shorten(value)}")
    return value
