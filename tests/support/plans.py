"""Plans of small studies."""

from dataclasses import replace
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Setting, Study
from cpsam.config.task import Task
from cpsam.study.make_plan import make_plan
from cpsam.study.plan import Plan

ARMS = ("none", "non_local", "cpsam")


def planned(study: Study, known: dict[str, int] | None = None) -> Plan:
    return make_plan(study, lambda event: None, known)


def study(**changes: Any) -> Study:
    settings = (
        Setting("last", Task(), ARMS),
        Setting("early", Task(at=("early",)), ("none", "cpsam", "squeeze_excite")),
    )
    base = Study(name="s", settings=settings, seeds=(5, 2), recipe=Recipe(epochs=1))
    return replace(base, **changes)
