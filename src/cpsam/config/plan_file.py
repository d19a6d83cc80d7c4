"""Reads a study from a file, ``PLAN.toml``. Every key is checked, so that a misspelt option is not
left at its default.

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
own. The fields of ``[task]`` hold in all settings, and a setting may change them.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from cpsam.config.ranges import Threads
from cpsam.config.recipe import Recipe
from cpsam.config.study import Budget, Contrast, NamedArm, Seeds, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import DataError, UserError, unknown
from cpsam.files import read_file
from cpsam.text import shorten
from cpsam.typed import Distinct, Rule, from_table

PLAN_BYTES = 2**24
MOST_LEVELS = 8  # of tables and lists in a plan
MOST_LETTERS = 1000  # of a text in a plan
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Table = dict[str, Any]


class FolderName(Rule):
    """Allows texts that may name a folder on every system."""

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, str) or not FOLDER_NAME.fullmatch(value):
            raise UserError(
                f"{name} must be letters, digits, '.', '_' or '-', 64 at most; got {shorten(value)}"
            )


Name = Annotated[str, FolderName()]


@dataclass(frozen=True, kw_only=True)
class PlanTable:
    """The keys of a plan."""

    name: Name
    seeds: Seeds
    threads: Threads = 1
    budget: Budget = "epochs"
    control: bool = True
    recipe: Recipe = field(default_factory=Recipe)
    task: Table = field(default_factory=dict)
    arm: dict[str, Table] = field(default_factory=dict)
    setting: tuple[Table, ...]
    primary: Table | None = None
    contrast: tuple[Table, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SettingTable(Task):
    """The keys of a setting: those of a task, a name and arms."""

    name: Name
    arms: tuple[str, ...]


def read_plan(path: Path, *, data_root: Path | None = None, workers: int | None = None) -> Study:
    """Returns the study that a file describes.

    Args:
        path: The file. Paths in it start from its folder.
        data_root: The folder of data sets on this machine.
        workers: Processes that load streamed images.

    Raises:
        UserError: If the file is missing or is not TOML, a key is unknown or missing, or a value
            does not fit.
    """
    try:
        # Some editors begin a file with a byte order mark.
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
    """Refuses values that no plan has.

    These are dates, long texts, zero bytes, numbers that are not finite or have more than 64 bits,
    and deep nesting.

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
    """Yields the values of a table or a list, each with its key."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from ((key, inner) for inner in value)


def plan_of(content: Table, folder: Path, machine: Table) -> Study:
    """Returns the study of a plan.

    Args:
        content: What the file says.
        folder: Where the paths in it start.
        machine: The fields of a task that belong to the machine.
    """
    plan = from_table(PlanTable, content)
    for table in (plan.task, *plan.setting):
        refuse_machine(table, machine)
    from_table(Task, plan.task, "task", **machine)
    arms = {name: named_arm(name, table) for name, table in plan.arm.items()}
    settings = []
    for table in plan.setting:
        own = from_table(SettingTable, {**plan.task, **table}, "setting", **machine)
        used = tuple(arms.get(arm, arm) for arm in own.arms)
        settings.append(Setting(own.name, task_of(own, folder, machine), used))
    # Contrasts find settings by name.
    Distinct().check([setting.name for setting in settings], "settings")
    check_all_used(arms, settings)
    study = Study(
        name=plan.name,
        settings=tuple(settings),
        seeds=plan.seeds,
        recipe=plan.recipe,
        threads=plan.threads,
        primary=None if plan.primary is None else contrast("primary", plan.primary, settings),
        contrasts=tuple(contrast("contrast", table, settings) for table in plan.contrast),
        budget=plan.budget,
        control=plan.control,
    )
    for each in study.contrasts:
        if each == study.primary or study.contrasts.count(each) > 1:
            raise UserError(
                f"contrast {each.arm} against {each.reference} in {each.setting} is asked twice"
            )
    return study


def refuse_machine(table: Table, machine: Table) -> None:
    """Refuses the fields of a task that differ from machine to machine."""
    for key in machine:
        if key in table:
            raise UserError(
                f"{key} belongs to the machine, not to the plan: pass it as an argument"
            )


def task_of(table: SettingTable, folder: Path, machine: Table) -> Task:
    """Returns the task of a setting. Its paths start from `folder`."""
    values = {each.name: getattr(table, each.name) for each in fields(Task)}
    for name, value in values.items():
        if isinstance(value, Path) and name not in machine:
            values[name] = folder / value
    return Task(**values)


def named_arm(name: str, table: Table) -> NamedArm:
    """Returns an arm of the plan; the keys of its recipe must be those of a recipe."""
    arm = from_table(NamedArm, table, f"arm.{name}", name=name, block=None)
    names = [each.name for each in fields(Recipe)]
    for key in arm.recipe:
        if key not in names:
            raise unknown(f"key of arm.{name}.recipe", key, names)
    return arm


def check_all_used(arms: Table, settings: Iterable[Setting]) -> None:
    """Refuses an arm that is in no setting."""
    used = [arm for setting in settings for arm in setting.arms]
    for name, arm in arms.items():
        if arm not in used:
            names = dict.fromkeys(each if isinstance(each, str) else each.name for each in used)
            raise UserError(f"arm {name} is in no setting; these are: {', '.join(names)}")


def contrast(where: str, table: Table, settings: Iterable[Setting]) -> Contrast:
    """Returns a question of the plan. Its setting may be left out where there is one only."""
    names = [setting.name for setting in settings]
    only = {"setting": names[0]} if len(names) == 1 else {}
    found = from_table(Contrast, {**only, **table}, where)
    if found.setting not in names:
        raise unknown(f"setting of {where}", found.setting, names)
    return found
