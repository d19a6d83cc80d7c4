"""The reader of plain data: types and rules from annotations, and no error but its own."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpsam.config.plan_file import PlanTable, plan_of
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.config.study import Contrast, NamedArm
from cpsam.config.task import Task
from cpsam.config.transform import Transform
from cpsam.errors import DataError, UserError
from cpsam.report.results import Results
from cpsam.run.records import RunConfig
from cpsam.study.records import History, WrittenPlan
from cpsam.typed import Choices, Distinct, Range, as_json, check, checked, from_table

SETTINGS = (Recipe, RunOptions, Task, Transform, NamedArm, Contrast)
RECORDS = (Results, RunConfig, WrittenPlan, History, Recipe, Task)

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: Annotated[int, Range(least=1, most=4096)] = 3


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: Annotated[float | None, Range(least=0, below=1)] = None
    kind: Annotated[str, Choices("fast", "slow")] = "fast"
    seeds: Annotated[tuple[int, ...], Distinct()] = (0,)
    root: Path | None = None
    inner: Inner = field(default_factory=Inner)
    more: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)


def keyed(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Tables whose keys are mostly those of a dataclass."""
    names = st.sampled_from([each.name for each in fields(cls)])
    return st.dictionaries(names | st.text(max_size=3), JSON, max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("cls", SETTINGS)
def test_no_table_makes_the_reader_of_settings_raise_another_error(cls: type, data: Any) -> None:
    try:
        found = from_table(cls, data.draw(keyed(cls) | JSON), "it")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert type(found) is cls and from_table(cls, as_json(found), "it") == found


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("cls", RECORDS)
def test_no_json_makes_the_reader_of_records_raise_another_error(cls: type, data: Any) -> None:
    try:
        checked(cls, data.draw(keyed(cls) | JSON), "file")
    except DataError as error:
        assert str(error).startswith("file: ")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from([each.name for each in fields(PlanTable)]), JSON))
def test_no_table_makes_the_reader_of_plans_raise_another_error(content: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        plan_of({"name": "p", "setting": [content], **content}, Path(), {})


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "outer.name is missing"),
        ({"nam": "a"}, "unknown key of outer 'nam': did you mean 'name'? Choices: inner, kind, "),
        ({"name": 3}, "outer.name must be text; got 3"),
        ({"name": "a", "rate": True}, "outer.rate must be a number from 0 to below 1; got True"),
        ({"name": "a", "rate": 1}, "outer.rate must be a number from 0 to below 1; got 1"),
        ({"name": "a", "rate": float("nan")}, "outer.rate must be a number from 0 to below 1"),
        ({"name": "a", "kind": "fats"}, "unknown outer.kind 'fats': did you mean 'fast'?"),
        ({"name": "a", "kind": []}, "unknown outer.kind []"),
        ({"name": "a", "seeds": 3}, "outer.seeds must be a list; got 3"),
        ({"name": "a", "seeds": [2**63]}, "outer.seeds must be a whole number of at most 64 bits"),
        ({"name": "a", "seeds": []}, "outer.seeds is empty: give at least one"),
        ({"name": "a", "seeds": [1, 2, 1]}, "outer.seeds must not repeat; 1 is given more than"),
        ({"name": "a", "root": 3}, "outer.root must be a path; got 3"),
        ({"name": "a", "inner": 3}, "outer.inner must be a table; got 3"),
        (
            {"name": "a", "inner": {"siz": 3}},
            "unknown key of outer.inner 'siz': did you mean 'size",
        ),
        (
            {"name": "a", "inner": {"size": 0}},
            "outer.inner.size must be a whole number from 1 to 4,096; got 0",
        ),
        ({"name": "a", "more": {"a b": "c"}}, "outer.more.'a b' must be a finite number; got 'c'"),
    ],
)
def test_an_error_names_the_value_the_rule_and_what_was_given(table: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        from_table(Outer, table, "outer")
    assert str(error.value).startswith(says)


def test_a_table_comes_back_with_its_types_and_its_numbers_as_they_are() -> None:
    table = {"name": "a", "rate": 0, "seeds": [3, 1], "root": "x/y", "inner": {"size": 9}}
    found = from_table(Outer, table)
    assert found == Outer(name="a", rate=0, seeds=(3, 1), root=Path("x/y"), inner=Inner(size=9))
    assert type(found.rate) is int, "the hash of a run depends on it"
    assert as_json(found) == {**table, "kind": "fast", "more": {}}
    assert checked(Outer, {**table, "of later": 1}, "file") == found
    assert from_table(Inner, {}, size=5) == Inner(size=5)
    with pytest.raises(UserError, match="unknown key 'size'"):
        from_table(Inner, {"size": 5}, size=5)


def test_a_record_is_read_by_the_same_rules() -> None:
    with pytest.raises(
        DataError, match=r"^file: inner\.size must be a whole number from 1 to 4,096"
    ):
        checked(Outer, {"name": "a", "inner": {"size": 0}}, "file")
    with pytest.raises(DataError, match=r"^file: inner must be an object; got 3"):
        checked(Outer, {"name": "a", "inner": 3}, "file")


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "outside"),
    [
        (Range(above=0), "above 0", [1e-9, 1e300], [0, -1]),
        (Range(least=0), "of at least 0", [0, 7], [-1e-9]),
        (Range(least=0, below=1), "from 0 to below 1", [0, 0.99], [1, -0.1]),
        (Range(above=0, most=1), "above 0 and at most 1", [1, 0.1], [0, 1.01]),
        (Range(least=8, most=4096), "from 8 to 4,096", [8, 4096], [7, 4097, float("nan")]),
    ],
)
def test_a_range_says_what_it_holds(
    bounds: Range, words: str, inside: list[float], outside: list[float]
) -> None:
    assert str(bounds) == words
    assert all(value in bounds for value in inside)
    assert not any(value in bounds for value in outside)
