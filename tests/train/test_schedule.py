"""The learning rates equal those of torch's own schedulers, which have a state."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from cpsam.train import Recipe
from cpsam.train.schedule import learning_rate


def rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    return [
        learning_rate(recipe, step, steps_per_epoch)
        for step in range(recipe.epochs * steps_per_epoch)
    ]


def torch_rates(
    lr: float, steps: int, make: Callable[[SGD], lr_scheduler.LRScheduler]
) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("epochs", "warmup", "share"),
    [(5, None, 0.3), (8, 2.0, 0.25), (10, 0.5, 0.05), (3, 2.5, 2.5 / 3)],
)
@pytest.mark.parametrize("steps_per_epoch", [13, 391])
def test_onecycle_is_that_of_torch(
    epochs: int, warmup: float | None, share: float, steps_per_epoch: int
) -> None:
    steps = epochs * steps_per_epoch
    expected = torch_rates(
        0.3,
        steps - 1,
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=steps, pct_start=share),
    )
    assert rates(Recipe(epochs=epochs, lr=0.3, warmup_epochs=warmup), steps_per_epoch)[
        :-1
    ] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 3, 17])
@pytest.mark.parametrize("warmup", [None, 0, 0.4])
def test_onecycle_peaks_at_lr_and_ends_low_however_short(
    steps_per_epoch: int, warmup: float | None
) -> None:
    seen = rates(Recipe(epochs=2, lr=0.7, warmup_epochs=warmup), steps_per_epoch)
    assert max(seen) == pytest.approx(0.7, rel=0.3)
    assert seen[-1] == pytest.approx(0.7 / 25 / 1e4)


def test_cosine_is_that_of_torch() -> None:
    expected = torch_rates(0.1, 7 * 11, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=77))
    assert rates(Recipe(epochs=7, schedule="cosine", lr=0.1), 11) == pytest.approx(
        expected, rel=1e-9
    )


def test_warmup_is_linear_and_then_cosine_begins_anew() -> None:
    warmup = torch_rates(
        0.1, 22, lambda o: lr_scheduler.LinearLR(o, start_factor=1 / 22, total_iters=21)
    )
    after = torch_rates(0.1, 55, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=55))
    assert rates(Recipe(epochs=7, schedule="cosine", lr=0.1, warmup_epochs=2), 11) == pytest.approx(
        warmup + after, rel=1e-9
    )


def test_steps_are_those_of_torch_in_epochs_and_in_fractions() -> None:
    expected = torch_rates(
        0.1, 200 * 3, lambda o: lr_scheduler.MultiStepLR(o, milestones=[180, 360, 480], gamma=0.2)
    )
    assert rates(
        Recipe(epochs=200, schedule="step", lr=0.1, milestones=(60, 120, 160)), 3
    ) == pytest.approx(expected, rel=1e-9)
    assert rates(
        Recipe(epochs=200, schedule="step", lr=0.1, milestones=(0.3, 0.6, 0.8)), 3
    ) == pytest.approx(expected, rel=1e-9)


def test_steps_may_be_warmed_up() -> None:
    seen = rates(
        Recipe(epochs=4, schedule="step", lr=0.4, milestones=(3,), gamma=0.5, warmup_epochs=1), 4
    )
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4] + [0.4] * 8 + [0.2] * 4)


@pytest.mark.parametrize("step", [-1, 20])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=f"a run of 20 steps has no step {step}"):
        learning_rate(Recipe(epochs=5), step, 4)
