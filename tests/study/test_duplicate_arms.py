"""Arms that are one block under two names are warned of."""

import pytest
import torch
from support.plans import planned, study

from cpsam.attention import ATTENTION
from cpsam.config.recipe import Recipe
from cpsam.config.study import NamedArm, Setting
from cpsam.config.task import Task
from cpsam.run.arm import Arm
from cpsam.study.duplicate_arms import duplicate_arms


def test_arms_that_are_one_block_are_warned_of() -> None:
    """At 32 and 64 channels both reductions come to 8, the least."""
    narrow, wide = (
        NamedArm("narrow", "cpsam", {"reduction": 32}),
        NamedArm("wide", "cpsam", {"reduction": 4}),
    )
    tuned = NamedArm("tuned", "cpsam", {"reduction": 32}, {"lr": 0.02})
    others = (
        "eca",
        "non_local",
        "non_local:mode=dot_product",
        "non_local:mode=embedded_gaussian,scaled=true",
        "conv_control",
        "conv_control:hidden_channels=7",
    )
    plan = planned(
        study(settings=(Setting("last", Task(), ("none", "cpsam", narrow, wide, tuned, *others)),))
    )
    assert [warning for warning in plan.warnings if "same block" in warning] == [
        "cpsam and narrow are the same block at the places in last: it would be trained twice."
    ]


def test_duplicate_arms_need_a_place_and_maps_that_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Square(torch.nn.Module):
        def __init__(self, in_channels: int, side: int = 8, device: str | None = None) -> None:
            super().__init__()
            self.side = side

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, self.side, self.side)

    monkeypatch.setitem(ATTENTION, "square", Square)
    recipes = {"a": Recipe(), "b": Recipe()}
    assert (
        duplicate_arms([Arm("a", "square"), Arm("b", "square", {"side": 9})], recipes, [32]) == []
    )
    pair = [Arm("a", "cpsam"), Arm("b", "cpsam")]
    assert (
        duplicate_arms(pair, recipes, [32, 64]) == [tuple(pair)]
        and duplicate_arms(pair, recipes, []) == []
    )
    assert duplicate_arms(pair, recipes | {"b": Recipe(lr=0.2)}, [32]) == []


def test_a_block_is_tried_once_however_many_arms_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(torch.nn.Identity):
        def __init__(self, in_channels: int, number: int, device: str | None = None) -> None:
            super().__init__()
            made.append(number)
            self.weight = torch.nn.Parameter(torch.zeros(1 + number // 2))

    monkeypatch.setitem(ATTENTION, "counted", Counted)
    arms = [Arm(f"a{number}", "counted", {"number": number}) for number in range(300)]
    found = duplicate_arms(arms, {arm.name: Recipe() for arm in arms}, [32, 32])
    assert [(one.name, other.name) for one, other in found] == [
        (f"a{number}", f"a{number + 1}") for number in range(0, 300, 2)
    ]
    assert made == [*range(300)]
