"""Absurd plans and words: each is refused in one line, before it takes memory or time."""

import os
from pathlib import Path
from typing import Any

import pytest

from cpsam.config.plan_file import read_plan
from cpsam.config.study import Comparison, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.report.records import PlanEntry
from cpsam.report.remarks import history_words
from cpsam.run.arm import parse_arm
from cpsam.study.make_plan import make_plan
from cpsam.typed import Distinct

DEEP = 100_000
PLAN = (
    'name = "p"\nseeds = {seeds}\n[recipe]\n{recipe}\n[arm.a]\nattention = "cpsam"\narguments = {{'
    " {arguments} }}\n"
)
PLAN += '[[setting]]\nname = "s"\narms = ["none", "a"]\n{setting}\n'
PLAIN = {"seeds": "[0]", "recipe": "", "arguments": "", "setting": ""}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "[" * DEEP}, "not TOML"),
        ({"seeds": "[" * 300 + "]" * 300}, "seeds is nested too deeply"),
        ({"seeds": "[1, " * 20 + "2" + "]" * 20}, "seeds is nested too deeply"),
        ({"seeds": f"[{10**30}]"}, "seeds must be a finite number of at most 64 bits; got 1000"),
        (
            {"seeds": f"[0x{'f' * 9000}]"},
            (
                "seeds must be a finite number of at most 64 bits; got a number of more than 4,300"
                " digits"
            ),
        ),
        ({"seeds": f"[{'9' * 5000}]"}, "not TOML"),
        (
            {"seeds": f"{[*range(50_001)]}"},
            "a study has at most 100,000 runs; seeds x arms x settings are 100,002",
        ),
        (
            {"seeds": "[[0]]"},
            "seeds must be a whole number from 0 to 9,223,372,036,854,775,807; got [0]",
        ),
        (
            {"seeds": "[1979-05-27]"},
            "seeds must be text, a number, true or false, a list or a table; got 1979-05-27",
        ),
        ({"seeds": "[nan]"}, "seeds must be a finite number"),
        (
            {"seeds": "[" + ", ".join(["7"] * 50_000) + "]"},
            "seeds must not repeat; 7 is given more than once",
        ),
        ({"recipe": f"epochs = {10**59}"}, "epochs must be a finite number of at most 64 bits"),
        ({"recipe": "lr = inf"}, "lr must be a finite number"),
        ({"arguments": "reduction = nan"}, "reduction must be a finite number"),
        (
            {"arguments": "reduction = [[1]]"},
            (
                "reduction must be text, a number, true or false, or a list or a table of these;"
                " got [1]"
            ),
        ),
        ({"arguments": "reduction = {a = {b = 1}}"}, "reduction must be text"),
        ({"arguments": f"reduction = {2**62}"}, "reduction must be at most 65,536"),
        (
            {"arguments": f'fusion = "{"x" * 10**6}"'},
            "fusion must have at most 1,000 letters; got 1,000,000",
        ),
        ({"setting": r'weights = "a\u0000b"'}, r"weights must not hold a zero byte; got 'a\x00b'"),
        ({"setting": f'["{"k" * 10**6}"]'}, "a key must have at most 1,000 letters; got 1,000,000"),
        ({"setting": f"image_size = {10**9}"}, "image_size must be a whole number from 8 to 4,096"),
        ({"setting": f"at = ['{'x.' * 10**5}']"}, "at must have at most 1,000 letters"),
    ],
)
def test_a_plan_is_refused_in_a_line(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(**{**PLAIN, **changes}))
    with pytest.raises(UserError) as error:
        make_plan(read_plan(path), lambda event: None)
    said = str(error.value)
    assert error.value.exit_code == 2 and len(said) < 600 and "\n" not in said
    assert any(part in said for part in words.split("|")), said


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge", "not text"])
def test_a_plan_that_is_no_text_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "plan.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(10**12)
    else:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"plan\.toml") as error:
        read_plan(path)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        "eca:kernel_size=999999999",
        "cbam:kernel_size=9999",
        "conv_control:hidden_channels=999999999999999999999",
        "conv_control:hidden_channels=9223372036854775807",
        "cpsam:reduction=1e999",
        "cpsam:reduction=NaN",
        f"cpsam:reduction={'[' * DEEP}",
        f"cpsam:reduction={'9' * 5000}",
        f"cpsam:{'x' * DEEP}=1",
        "cpsam:reduction=" + '{"a":' * DEEP,
        "x" * DEEP,
        "cpsam:reduction=" + ",reduction=".join(["1"] * 999),
    ],
)
def test_an_arm_is_refused_before_it_takes_memory(words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_arm(words)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        {"seeds": (10**20,)},
        {"threads": 10**12},
        {"threads": -1},
        {"seeds": tuple(range(30_000))},
        {"task": "workers"},
    ],
)
def test_a_comparison_is_refused_before_anything_is_loaded(words: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Comparison(**(words if "task" not in words else {"task": Task(workers=10**9)}))


class Counted:
    """A value that counts how often it is compared."""

    compared = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        assert Counted.compared < 1_000_000, "the work grows with the square of the list"
        return isinstance(other, Counted) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def test_a_list_of_100_000_is_checked_in_one_pass() -> None:
    Counted.compared = 0
    Distinct().check(map(Counted, range(100_000)), "seeds")
    with pytest.raises(UserError, match="must not repeat"):
        Distinct().check((*map(Counted, range(100_000)), Counted(0)), "seeds")


def test_a_study_of_100_000_runs_is_a_plan_in_one_pass() -> None:
    setting = Setting("here", Task(), ("none", "eca"))
    study = Study(name="s", settings=(setting,), seeds=tuple(range(50_000)))
    assert len(study.seeds) == 50_000


def test_a_plan_that_grew_by_100_000_runs_is_told_in_one_pass() -> None:
    Counted.compared = 0
    plan = {"primary": ("a", "b", "s"), "contrasts": (), "seeds": (0,), "budget": "epochs"}
    plans = [
        PlanEntry(runs=tuple(map(Counted, range(start, start + 100_000))), ended_before=3, **plan)
        for start in (0, 50_000)
    ]
    assert history_words(plans) == [
        "The plan was changed after 3 of its 100000 runs had ended: 50000 more runs and 50000 fewer"
        " runs."
    ]
