"""What a study keeps of its plan, and of the changes of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.quick_runs import STUDY, Fake, carried_out

import cpsam.study.conduct as study_conduct
from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting
from cpsam.config.task import Task
from cpsam.errors import DataError, StoppedError, UserError
from cpsam.run.events import OnEvent
from cpsam.run.records import StoredRun
from cpsam.study.conduct import conduct
from cpsam.study.execute_run import PlannedRun
from cpsam.study.executor import InProcess
from cpsam.study.history import known_epochs, known_plans


@pytest.fixture(autouse=True)
def without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency and memory have tests of their own, and take longer than all that is asked here."""
    monkeypatch.setattr(
        study_conduct,
        "measure_arms",
        lambda plan, runs, on_event: {"environment": {}, "timing": {"arms": {}}},
    )


def test_the_plan_is_written_before_anything_runs_and_each_change_is_kept(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        carried_out(tmp_path, Fake(none0=StoppedError("stopped")))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (
        plan["seeds"] == [0, 1]
        and plan["primary"] == ["cpsam", "non_local", "last"]
        and len(plan["runs"]) == 6
    )
    carried_out(tmp_path, Fake())
    results = carried_out(tmp_path, Fake(), replace(STUDY, seeds=(0, 1, 5)))
    assert [
        (each["seeds"], len(each["runs"]), each["ended_before"]) for each in results["plans"]
    ] == [([0, 1], 6, 0), ([0, 1, 5], 9, 6)]
    assert "1 more seed (5) and 3 more runs." in (tmp_path / "report.md").read_text()
    again = carried_out(tmp_path, Fake(), replace(STUDY, seeds=(0, 1, 5)))
    assert again["plans"] == results["plans"]
    carried_out(tmp_path, Fake(), replace(STUDY, seeds=(1, 5)))
    assert (
        "after 9 of its 9 runs had ended: 1 fewer seed (0) and 3 fewer runs."
        in (tmp_path / "report.md").read_text()
    )


def test_the_same_plan_in_another_order_is_no_change_of_it(tmp_path: Path) -> None:
    contrasts = (Contrast("cpsam", "none", "last"), Contrast("non_local", "none", "last"))
    first = carried_out(tmp_path, Fake(), replace(STUDY, contrasts=contrasts))
    turned = carried_out(
        tmp_path, Fake(), replace(STUDY, seeds=STUDY.seeds[::-1], contrasts=contrasts[::-1])
    )
    assert turned["plans"] == first["plans"] and len(first["plans"]) == 1
    fewer = carried_out(
        tmp_path, Fake(), replace(STUDY, seeds=STUDY.seeds[::-1], contrasts=contrasts[:1])
    )
    assert len(fewer["plans"]) == 2
    assert (
        "of its 6 runs had ended: other secondary contrasts."
        in (tmp_path / "report.md").read_text()
    )


def test_a_change_of_the_plan_is_told_by_what_changed(tmp_path: Path) -> None:
    narrow = NamedArm("narrow", "cpsam", {"reduction": 4})
    with_it = replace(
        STUDY, settings=(Setting("last", Task(), ("none", "non_local", "cpsam", narrow)),)
    )
    faster = replace(with_it, recipe=Recipe(epochs=1, lr=0.05))
    wider = replace(narrow, arguments={"reduction": 2}, recipe={"momentum": 0.5})
    other = replace(
        faster, settings=(Setting("last", Task(), ("none", "non_local", "cpsam", wider)),)
    )
    for plan in (STUDY, with_it, faster, other, replace(STUDY, recipe=faster.recipe)):
        carried_out(tmp_path, Fake(), plan)
    told = [
        line.rpartition("had ended: ")[2]
        for line in (tmp_path / "report.md").read_text().splitlines()
        if "had ended: " in line
    ]
    assert told == [
        "1 more arm (narrow in last) and 2 more runs.",
        "8 more runs, 8 fewer runs and recipe (lr 0.05 instead of 0.1).",
        (
            "2 more runs, 2 fewer runs and narrow in last (reduction 2 instead of 4, momentum 0.5"
            " instead of \N{EN DASH})."
        ),
        "1 fewer arm (narrow in last) and 2 fewer runs.",
    ]


def test_a_look_at_a_study_changes_nothing_but_the_report(tmp_path: Path) -> None:
    carried_out(tmp_path, Fake())
    kept = {path: path.read_bytes() for path in tmp_path.rglob("plan*.json")}
    results = conduct(replace(STUDY, seeds=(0,)), tmp_path, train=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("plan*.json")} == kept
    assert (
        results["seeds"] == [0]
        and "1 fewer seed (1) and 3 fewer runs." in (tmp_path / "report.md").read_text()
    ), "and it is told"
    carried_out(tmp_path, Fake())
    assert "The plan was changed" not in (tmp_path / "report.md").read_text()


def test_a_plan_that_another_process_made_meanwhile_keeps_its_report(tmp_path: Path) -> None:
    wider = replace(STUDY, seeds=(0, 1, 5))

    class Overtaken(InProcess):
        def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
            ended = super().run(runs, on_event)
            carried_out(tmp_path, Fake(), wider)
            return ended

    results = conduct(STUDY, tmp_path, executor=Overtaken(Fake()))
    assert results["overtaken"] is True
    assert results["seeds"] == [0, 1] and [each["seeds"] for each in results["plans"]] == [[0, 1]]
    assert results["warnings"][-1].startswith(
        "Another process changed the plan of this study meanwhile"
    )
    assert json.loads((tmp_path / "results.json").read_text())["seeds"] == [0, 1, 5]
    assert "1 more seed (5) and 3 more runs." in (tmp_path / "report.md").read_text()


def test_a_plan_that_was_only_begun_elsewhere_holds_no_report_back(tmp_path: Path) -> None:
    class Begun(InProcess):
        def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
            ended = super().run(runs, on_event)
            with pytest.raises(StoppedError):
                carried_out(
                    tmp_path, Fake(none5=StoppedError("stopped")), replace(STUDY, seeds=(5, 0, 1))
                )
            return ended

    results = conduct(STUDY, tmp_path, executor=Begun(Fake()))
    assert not results["overtaken"] and json.loads((tmp_path / "results.json").read_text())[
        "seeds"
    ] == [0, 1]
    carried_out(tmp_path, Fake(), replace(STUDY, seeds=(5, 0, 1)))
    assert json.loads((tmp_path / "results.json").read_text())["seeds"] == [5, 0, 1]


def test_what_others_changed_and_changed_back_meanwhile_is_told(tmp_path: Path) -> None:
    class Meanwhile(InProcess):
        def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
            ended = super().run(runs, on_event)
            for seeds in ((0, 1, 5), (1, 0)):
                carried_out(tmp_path, Fake(), replace(STUDY, seeds=seeds))
            return ended

    results = conduct(STUDY, tmp_path, executor=Meanwhile(Fake()))
    assert not results["overtaken"] and [each["seeds"] for each in results["plans"]] == [
        [0, 1],
        [0, 1, 5],
        [1, 0],
    ]
    assert (
        "1 more seed (5)" in (tmp_path / "report.md").read_text()
        and "1 fewer seed (5)" in (tmp_path / "report.md").read_text()
    )


def test_the_question_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    carried_out(tmp_path, Fake())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError,
        match=(
            r"cpsam against non_local in last, .* cpsam against none in last; another question"
            r" needs"
        ),
    ):
        carried_out(tmp_path, Fake(), replace(STUDY, primary=Contrast("cpsam", "none", "last")))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"plans": 3}',
        '{"plans": [{}]}',
        '{"plans": [null]}',
        '{"plans": [{"primary": "cpsam"}]}',
    ],
)
def test_a_damaged_history_is_named_and_kept(tmp_path: Path, content: str) -> None:
    """It says what was asked before anything ran."""
    (tmp_path / "plans.json").write_text(content)
    with pytest.raises(DataError, match=r"plans\.json"):
        known_plans(tmp_path)
    assert (tmp_path / "plans.json").read_text() == content


@pytest.mark.parametrize(
    "content",
    [
        '{"a": 0}',
        '{"a": "2"}',
        '{"a": 1.5}',
        '{"a": true}',
        '{"a": null}',
        f'{{"a": {10**29}}}',
        "[",
        "NaN",
    ],
)
def test_a_damaged_budget_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "budget.json").write_text(content)
    with pytest.raises(DataError, match=r"budget\.json"):
        known_epochs(tmp_path)
