"""The learning rate as a pure function of the step, so that nothing has to be saved."""

import math

from cpsam.config.recipe import Recipe

WARMUP_FRACTION = 0.3  # of a one-cycle run
# One-cycle starts at lr / 25 and ends at a ten-thousandth of that.
START_DIVISOR, END_DIVISOR = 25.0, 1e4


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Returns the learning rate of an optimizer step.

    Args:
        recipe: Its schedule, highest rate and length.
        step: Counted from 0 over the whole run.
        steps_per_epoch: Steps per epoch.

    Raises:
        ValueError: If the run has no such step.

    Example:
        >>> recipe = Recipe(epochs=10, schedule="step", lr=0.1, milestones=(0.5,), gamma=0.1)
        >>> [round(learning_rate(recipe, step, 2), 3) for step in (0, 9, 10)]
        [0.1, 0.1, 0.01]
    """
    total = recipe.epochs * steps_per_epoch
    if not 0 <= step < total:
        raise ValueError(f"a run of {total} steps has no step {step}")
    return recipe.lr * SCHEDULES[recipe.schedule](recipe, step, steps_per_epoch)


def one_cycle(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Rises to the highest rate, then falls, along half a cosine each.

    Smith and Topin, arXiv:1708.07120, in the form of :class:`torch.optim.lr_scheduler.OneCycleLR`.
    """
    total = recipe.epochs * steps_per_epoch
    if recipe.warmup_epochs is None:
        warmup = WARMUP_FRACTION * total
    else:
        warmup = recipe.warmup_epochs * steps_per_epoch
    # The step with the highest rate; the first step counts as one of the warm-up.
    peak = max(warmup - 1.0, 0.0)
    start, end = 1 / START_DIVISOR, 1 / (START_DIVISOR * END_DIVISOR)
    if step < peak:
        return interpolate(start, 1.0, step / peak)
    return interpolate(1.0, end, (step - peak) / max(total - 1 - peak, 1.0))


def cosine(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    warmup = round((recipe.warmup_epochs or 0) * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    return interpolate(1.0, 0.0, (step - warmup) / (recipe.epochs * steps_per_epoch - warmup))


def multi_step(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    warmup = round((recipe.warmup_epochs or 0) * steps_per_epoch)
    epochs = [
        milestone * recipe.epochs if milestone < 1 else milestone for milestone in recipe.milestones
    ]
    passed = sum(step >= round(epoch * steps_per_epoch) for epoch in epochs)
    return recipe.gamma**passed * min(1.0, (step + 1) / max(warmup, 1))


def interpolate(first: float, last: float, fraction: float) -> float:
    """Returns the value between `first` and `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


SCHEDULES = {"onecycle": one_cycle, "cosine": cosine, "step": multi_step}
