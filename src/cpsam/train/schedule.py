"""The learning rate of a step, as a pure function: nothing to save, and any step can be asked for
at once.
"""

import math

from cpsam.config.recipe import Recipe

RISE_SHARE = 0.3  # of a one-cycle run
# one-cycle starts at lr / 25 and ends at a ten-thousandth of that
START_DIVISOR, END_DIVISOR = 25.0, 1e4


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate with which the optimizer makes step `step`.

    Args:
        recipe: Its schedule, highest rate and length.
        step: Counted from 0 over the whole run.
        steps_per_epoch: Steps an epoch.

    Raises:
        ValueError: If the step is not one of the run's.

    Example:
        >>> recipe = Recipe(epochs=10, schedule="step", lr=0.1, milestones=(0.5,), gamma=0.1)
        >>> [round(learning_rate(recipe, step, 2), 3) for step in (0, 9, 10)]
        [0.1, 0.1, 0.01]
    """
    total = recipe.epochs * steps_per_epoch
    if not 0 <= step < total:
        raise ValueError(f"a run of {total} steps has no step {step}")
    return recipe.lr * SCHEDULES[recipe.schedule](recipe, step, steps_per_epoch)


def onecycle(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Smith and Topin, arXiv:1708.07120, in the cosine form of
    :class:`torch.optim.lr_scheduler.OneCycleLR`.
    """
    total = recipe.epochs * steps_per_epoch
    rise = (
        RISE_SHARE * total
        if recipe.warmup_epochs is None
        else recipe.warmup_epochs * steps_per_epoch
    )
    # the step at which it is highest; the first step counts as one of the rise
    top = max(rise - 1.0, 0.0)
    start, end = 1 / START_DIVISOR, 1 / (START_DIVISOR * END_DIVISOR)
    if step < top:
        return between(start, 1.0, step / top)
    return between(1.0, end, (step - top) / max(total - 1 - top, 1.0))


def cosine(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    warmup = round((recipe.warmup_epochs or 0) * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    return between(1.0, 0.0, (step - warmup) / (recipe.epochs * steps_per_epoch - warmup))


def drops(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    warmup = round((recipe.warmup_epochs or 0) * steps_per_epoch)
    epochs = [
        milestone * recipe.epochs if milestone < 1 else milestone for milestone in recipe.milestones
    ]
    passed = sum(step >= round(epoch * steps_per_epoch) for epoch in epochs)
    return recipe.gamma**passed * min(1.0, (step + 1) / max(warmup, 1))


def between(first: float, last: float, share: float) -> float:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES = {"onecycle": onecycle, "cosine": cosine, "step": drops}
