"""Says how a network is trained, as plain data."""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Annotated, Any, get_args

from cpsam.config.ranges import AtLeastZero, Count, Fraction
from cpsam.errors import UserError
from cpsam.typed import Choices, Range, as_json, check, field_kinds

# Marks a field that came later. At its default, the description of a run leaves it out, so that
# runs from before there was such a field keep their names.
LATER = "later"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. The defaults bring a thin ResNet far in few epochs.

    Biases, norms and every other parameter with one axis have no weight decay.

    Raises:
        UserError: If a value breaks its rule.

    Example:
        >>> Recipe(epochs=200, schedule="step", milestones=(60, 120, 160)).weight_decay
        0.0005
    """

    epochs: Count = 8
    """Passes over the train split, from 1 to 1,000,000."""
    batch_size: Annotated[int, Range(least=2, most=1_000_000)] = 128
    """Images per step, from 2 to 1,000,000. BatchNorm cannot train on a single image."""
    optimizer: Annotated[str, Choices("sgd", "momentum", "adamw")] = "sgd"
    """Optimizer: sgd has Nesterov momentum, momentum the plain one; adamw wants a learning rate
    near 1e-3.
    """
    lr: Annotated[float, Range(above=0)] = 0.1
    """Highest learning rate, above 0."""
    momentum: Fraction = 0.9
    """Momentum of sgd and momentum, from 0 to below 1."""
    weight_decay: AtLeastZero = 5e-4
    """Weight decay, at least 0: L2 for sgd and momentum, decoupled for adamw."""
    schedule: Annotated[str, Choices("onecycle", "cosine", "step")] = "onecycle"
    """Schedule of the learning rate: onecycle rises, then falls, both along a cosine; cosine falls
    to zero; step drops at the milestones.
    """
    warmup_epochs: Annotated[float | None, Range(least=0)] = None
    """Epochs in which the learning rate rises, below the number of epochs. Default: 0.3 of the run
    for onecycle, none for the others, whose rise is linear.
    """
    milestones: tuple[Annotated[float, Range(above=0)], ...] = (0.3, 0.6, 0.8)
    """Where step drops: below 1 a fraction of the run, from 1 on an epoch."""
    gamma: Annotated[float, Range(above=0, most=1)] = 0.2
    """Factor of each drop of step, above 0 and at most 1."""
    label_smoothing: Fraction = 0.0
    """Fraction of the target that is spread over all classes, from 0 to below 1."""
    precision: Annotated[str, Choices("auto", "float32", "bfloat16", "float16")] = "auto"
    """Precision: float32; bfloat16, under autocast, with weights in float32; float16, which needs a
    gradient scaler, for GPUs without bfloat16; auto takes bfloat16 where the device gains.
    """
    channels_last: Annotated[str, Choices("auto", "on", "off")] = "auto"
    """Memory format of images and weights: on, off, or auto, which takes channels_last where the
    device gains.
    """
    augment: bool = True
    """Crop and mirror at random, as far as the data set allows."""
    accumulate: Annotated[Count, LATER] = 1
    """Parts in which a process computes its images of a step, one after the other, to save memory.
    The batch stays the same. From 1 to 1,000,000.
    """
    clip_norm: Annotated[AtLeastZero, LATER] = 0.0
    """Clip the gradient to this norm, over all parameters together, at least 0; 0 does not clip."""
    ema_decay: Annotated[Fraction, LATER] = 0.0
    """Average the weights exponentially with this decay; measure and keep the average. From 0 to
    below 1; 0 does not average.
    """
    mixup: Annotated[AtLeastZero, LATER] = 0.0
    """Parameter of the Beta distribution of mixup, at least 0; 0 turns mixup off."""
    cutmix: Annotated[AtLeastZero, LATER] = 0.0
    """Parameter of the Beta distribution of CutMix, at least 0; 0 turns CutMix off. With both, each
    step takes one of them.
    """
    drop_rate: Annotated[Fraction, LATER] = 0.0
    """Dropout before the classifier, from 0 to below 1."""
    drop_path: Annotated[Fraction, LATER] = 0.0
    """Stochastic depth: the rate of the last residual branch, from 0 to below 1. Those before it
    have lower rates, in proportion.
    """
    sync_bn: Annotated[bool, LATER] = False
    """Take the statistics of BatchNorm over all GPUs, not over each."""

    def __post_init__(self) -> None:
        check(self)
        if self.optimizer == "sgd" and self.momentum == 0:
            raise UserError(
                "momentum must be above 0 for optimizer 'sgd', which is Nesterov's; got 0"
                " ('momentum' allows it)"
            )
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise UserError(
                f"warmup_epochs must be a number from 0 to below epochs ({self.epochs}); got"
                f" {self.warmup_epochs}"
            )
        ends = [each * self.epochs if each < 1 else each for each in self.milestones]
        if any(later <= earlier for earlier, later in pairwise(ends)):
            raise UserError(f"milestones must grow; got {self.milestones}")
        if self.schedule == "step" and ends and ends[-1] >= self.epochs:
            raise UserError(
                f"milestones must lie before the end of the run (epochs is {self.epochs}); got"
                f" {self.milestones}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON has them, without later ones at their defaults."""
        kinds = field_kinds(type(self))
        return {
            each.name: as_json(getattr(self, each.name))
            for each in fields(self)
            if LATER not in get_args(kinds[each.name]) or getattr(self, each.name) != each.default
        }

    def differing_from(self, other: "Recipe") -> dict[str, Any]:
        """Returns the fields, as JSON has them, in which this recipe differs from `other`."""
        return {
            each.name: as_json(getattr(self, each.name))
            for each in fields(self)
            if getattr(self, each.name) != getattr(other, each.name)
        }
