"""A field of a task is one edit: the flag, the key of a plan, the check and the record follow."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import pytest

from cpsam.cli.flags import build, flags_of
from cpsam.cli.parse import parse
from cpsam.config import plan_file
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.config.task import Task
from cpsam.config.transform import Transform
from cpsam.errors import UserError
from cpsam.run import spec as run_spec
from cpsam.run.arm import Arm
from cpsam.run.spec import RunSpec, recorded_task
from cpsam.typed import Range

PLAN = 'name = "p"\nseeds = [0]\n[task]\nborder = {}\n[[setting]]\nname = "s"\narms = ["none"]\n'


@dataclass(frozen=True, kw_only=True)
class Bordered(Task):
    """A task with one more field."""

    border: Annotated[int, Range(least=0, most=8)] = 0
    """Pixels around an image."""


@dataclass(frozen=True)
class Request:
    task: Bordered = field(default_factory=Bordered)


def test_a_new_field_is_checked() -> None:
    with pytest.raises(UserError, match="border must be a whole number from 0 to 8; got 9"):
        Bordered(border=9)


def test_a_new_field_is_a_flag() -> None:
    flags = flags_of(Request)
    assert build(Request, parse(flags, ["--border", "3"])).task == Bordered(border=3)
    with pytest.raises(UserError, match="border must be a whole number from 0 to 8; got 9"):
        build(Request, parse(flags, ["--border", "9"]))


def test_every_field_of_a_task_and_a_recipe_says_what_it_is() -> None:
    for owner in (Task, Transform, Recipe, RunOptions):
        assert all(flag.text for flag in flags_of(owner).values())
    assert flags_of(Recipe)["schedule"].choices == ("onecycle", "cosine", "step")


def test_a_new_field_is_a_key_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Setting(Bordered):
        name: str
        arms: tuple[str, ...]

    monkeypatch.setattr(plan_file, "Task", Bordered)
    monkeypatch.setattr(plan_file, "SettingTable", Setting)
    (tmp_path / "plan.toml").write_text(PLAN.format(3))
    (setting,) = plan_file.read_plan(tmp_path / "plan.toml").settings
    assert setting.task == Bordered(border=3)
    (tmp_path / "plan.toml").write_text(PLAN.format(9))
    with pytest.raises(UserError, match=r"task\.border must be a whole number from 0 to 8; got 9"):
        plan_file.read_plan(tmp_path / "plan.toml")


def test_a_new_field_is_recorded_where_it_is_not_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), 0, Recipe(), 1)
    assert replace(old, task=Bordered()).folder_name == old.folder_name
    config = replace(old, task=Bordered(border=3)).as_config()
    assert config["data"] == {**old.as_config()["data"], "border": 3}
    monkeypatch.setattr(run_spec, "Task", Bordered)
    assert recorded_task(config, "config.json") == Bordered(border=3)
