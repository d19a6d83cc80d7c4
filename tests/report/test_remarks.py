"""A reader learns what was changed in a plan after runs of it had ended, and where runs differ."""

from dataclasses import replace

import pytest
from support.whole_study import changed

from cpsam.report.records import PlanEntry, PlannedBlock
from cpsam.report.remarks import history_words, remarks

CPSAM = PlannedBlock(attention="cpsam", arguments={"reduction": 16}, recipe={})
PLAN = PlanEntry(
    primary=("cpsam", "none", "late"),
    contrasts=(),
    seeds=(0, 1),
    budget="epochs",
    recipe={"epochs": 2, "lr": 0.1},
    arms={"none": PlannedBlock(attention="none", arguments={}, recipe={}), "cpsam": CPSAM},
    runs=("a", "b"),
)
OLD = replace(PLAN, recipe=None, arms=None)


@pytest.mark.parametrize(
    ("before", "changes", "words"),
    [
        (PLAN, {"seeds": (1, 0)}, None),
        (PLAN, {"runs": ("a", "b", "c")}, "1 more run"),
        (PLAN, {"seeds": (0, 2, 3)}, "2 more seeds (2, 3) and 1 fewer seed (1)"),
        (PLAN, {"arms": {"cpsam": CPSAM}}, "1 fewer arm (none)"),
        (PLAN, {"budget": "time"}, "another budget"),
        (PLAN, {"contrasts": (("cpsam", "eca", "late"),)}, "other secondary contrasts"),
        (PLAN, {"recipe": {"epochs": 3, "lr": 0.1}}, "recipe (epochs 3 instead of 2)"),
        (
            PLAN,
            {"arms": {**(PLAN.arms or {}), "cpsam": replace(CPSAM, arguments={"reduction": 8})}},
            "cpsam (reduction 8 instead of 16)",
        ),
        (
            PLAN,
            {"arms": {**(PLAN.arms or {}), "cpsam": replace(CPSAM, recipe={"lr": 0.2})}},
            "cpsam (lr 0.2 instead of \N{EN DASH})",
        ),
        (OLD, {}, None),
        (OLD, {"recipe": PLAN.recipe, "arms": PLAN.arms}, None),
        (PLAN, {"recipe": None, "arms": None}, None),
    ],
)
def test_a_change_of_a_plan_is_told(
    before: PlanEntry, changes: dict[str, object], words: str | None
) -> None:
    said = history_words([before, replace(before, ended_before=1, **changes)])
    whole = f"The plan was changed after 1 of its 2 runs had ended: {words}."
    assert said == ([] if words is None else [whole])


def test_seeds_of_unlike_environments_are_named_together() -> None:
    unlike = {"4": ["processor"], "1": ["processor"], "7": ["precision", "versions"]}
    said = remarks(changed(unlike=unlike, warnings=["First."], plans=[]))
    assert [line.split(". ")[0] for line in said] == [
        "First.",
        "The runs of seeds 4, 1 come from different environments: processor differs",
        "The runs of seed 7 come from different environments: precision, versions differ",
    ]
