"""A budget of time gives each arm about the time of the bare network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.plans import planned, study

from cpsam.config.recipe import Recipe
from cpsam.data import Split
from cpsam.measure import Latency
from cpsam.run.arm import Arm
from cpsam.study import budget
from cpsam.study.budget import shortened


def test_a_budget_of_time_is_measured_once_and_gives_slower_arms_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {
        "bare": 1.0,
        "arm none": 1.1,
        "arm conv_control": 0.9,
        "arm non_local": 4.0,
        "arm cpsam": 1.25,
    }
    measured: list[set[str]] = []

    def timed(steps: dict[str, Callable[[], object]], **_: Any) -> dict[str, Latency]:
        measured.append(set(steps))
        for step in steps.values():
            step()
        return {name: Latency(seconds[name], seconds[name], seconds[name], 10) for name in steps}

    monkeypatch.setattr(budget, "measure_latency", timed)
    wanted = study(
        budget="time", recipe=Recipe(epochs=40, batch_size=16), settings=study().settings[:1]
    )
    known: dict[str, int] = {}
    plan = planned(wanted, known)
    # A faster arm gets more, and the bare network what was asked for, whatever the clock said of
    # it.
    assert {arm.arm.name: arm.recipe.epochs for arm in plan.arms} == {
        "none": 40,
        "conv_control": 44,
        "non_local": 10,
        "cpsam": 32,
    }
    assert [spec.folder_name for spec in planned(wanted, known).runs] == [
        spec.folder_name for spec in plan.runs
    ]
    assert measured == [set(seconds)], "once, and never again"
    assert plan.notes[0].startswith("conv_control has "), (
        "a name is not altered at the start of a sentence"
    )
    assert (
        plan.notes[-1]
        == "Equal time for every arm, in epochs: none 40, non_local 10, cpsam 32, conv_control 44."
        and not plan.warnings
    )


def test_a_budget_of_time_is_measured_for_each_size_of_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[tuple[int, int]] = []

    def timed(steps: dict[str, Callable[[], object]], **_: Any) -> dict[str, Latency]:
        seconds = {"bare": 1.0, "arm cpsam": 1.25 * (1 + len(sizes))}
        return {name: Latency(seconds[name], seconds[name], seconds[name], 10) for name in steps}

    monkeypatch.setattr(budget, "measure_latency", timed)
    small = planned(study()).loaded["last"]
    train = Split(torch.zeros(2, 1, 16, 24, dtype=torch.uint8), torch.arange(2))
    wide = replace(small, dataset=replace(small.dataset, train=train))
    recipes, arms, known = {"cpsam": Recipe(epochs=40)}, {"cpsam": Arm("cpsam", "cpsam")}, {}
    epochs = []
    for loaded in (small, wide, small, wide):
        found = budget.epochs_in_time(recipes, arms, loaded, known, threads=1)
        sizes.append(loaded.dataset.image_size)
        epochs.append(found["cpsam"].epochs)
    assert sizes[0] != sizes[1] and epochs == [32, 16, 32, 16]


def test_a_schedule_is_stretched_with_its_epochs() -> None:
    recipe = Recipe(epochs=200, schedule="step", milestones=(0.3, 120, 160), warmup_epochs=5)
    short = shortened(recipe, 100)
    assert (short.epochs, short.milestones, short.warmup_epochs) == (100, (0.3, 60, 80), 2.5)
    assert shortened(Recipe(epochs=8), 5) == Recipe(epochs=5)


@pytest.mark.parametrize(
    ("milestones", "epochs"),
    [((1, 3), 2), ((3, 5), 2), ((2, 4, 6), 2), ((2, 6), 3), ((0.5, 6), 1), ((1, 7), 16)],
)
def test_a_drop_stays_at_its_share_of_the_run(milestones: tuple[float, ...], epochs: int) -> None:
    """From 1 on a milestone is an epoch, below a share: one that shrinks across the border must not
    jump.
    """

    def shares(recipe: Recipe) -> list[float]:
        return [each if each < 1 else each / recipe.epochs for each in recipe.milestones]

    recipe = Recipe(epochs=8, schedule="step", milestones=milestones)
    assert shares(shortened(recipe, epochs)) == pytest.approx(shares(recipe))
