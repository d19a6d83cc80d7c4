"""How a network is trained, as plain data. No torch here: the command line builds its flags from
these fields.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from cpsam.errors import UserError, unknown

# The fields are plain words, not Literal: so a wrong one is answered here, with the nearest choice,
# and not by a parser.
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "momentum", "adamw"),
    "schedule": ("onecycle", "cosine", "step"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "channels_last": ("auto", "on", "off"),
}
NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr": ("above 0", lambda value: value > 0),
    "momentum": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "weight_decay": ("at least 0", lambda value: value >= 0),
    "gamma": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "label_smoothing": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "clip_norm": ("at least 0", lambda value: value >= 0),
    "ema_decay": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "mixup": ("at least 0", lambda value: value >= 0),
    "cutmix": ("at least 0", lambda value: value >= 0),
    "drop_rate": ("from 0 to below 1", lambda value: 0 <= value < 1),
    "drop_path": ("from 0 to below 1", lambda value: 0 <= value < 1),
}
MOST = 1_000_000  # epochs, and images of a batch
LARGEST = sys.float_info.max
MOST_SEED = 2**63 - 1
MOST_THREADS = 1024  # torch crashes when it is asked for a hundred thousand.
# Left out of a run's description while they are off, so that runs from before there were such
# fields keep their names.
LATER = (
    "accumulate",
    "clip_norm",
    "ema_decay",
    "mixup",
    "cutmix",
    "drop_rate",
    "drop_path",
    "sync_bn",
)


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults bring a thin ResNet far in few epochs.

    Biases, norms and every other parameter with one axis have no weight decay.

    Args:
        epochs: Passes over the train split, from 1 to 1,000,000.
        batch_size: Images per step, from 2 to 1,000,000.
        optimizer: "sgd" has Nesterov momentum, "momentum" the plain one; "adamw" wants a learning
            rate near 1e-3.
        lr: Highest learning rate, above 0.
        momentum: Of "sgd" and "momentum", from 0 to below 1.
        weight_decay: At least 0; L2 for "sgd" and "momentum", decoupled for "adamw".
        schedule: "onecycle" rises, then falls, both along a cosine; "cosine" falls to zero; "step"
            drops at `milestones`.
        warmup_epochs: Length of the rise. By default 0.3 of the run for "onecycle", none for the
            others, whose rise is linear.
        milestones: Where "step" drops: below 1 a fraction of the run, from 1 on an epoch.
        gamma: Factor of each drop of "step", above 0 and at most 1.
        label_smoothing: Share of the target that is spread over all classes, from 0 to below 1.
        precision: "float32"; "bfloat16" computes under autocast and keeps the weights in float32;
            "auto" takes it where the device gains. "float16" likewise, under a scaler of gradients,
            for GPUs that have nothing better.
        channels_last: "on" or "off", the memory format of images and weights; "auto" takes it where
            the device gains.
        augment: Random crop and mirror, as far as the data set allows them.
        accumulate: Parts in which a process computes its images of a step, one after the other, to
            save memory. The batch stays the batch. From 1 to 1,000,000.
        clip_norm: Longest gradient, over all parameters together, at least 0; 0: any.
        ema_decay: Average the weights exponentially with this decay, then measure and keep the
            average. From 0 to below 1; 0: not.
        mixup: Parameters of the Beta distribution of mixup, at least 0; 0: none.
        cutmix: Those of CutMix, at least 0; 0: none. With both, each step is either.
        drop_rate: Dropout before the classifier, from 0 to below 1.
        drop_path: Stochastic depth: how often the last residual branch is left out; those before it
            less, in proportion. From 0 to below 1.
        sync_bn: Take BatchNorm's statistics over all GPUs, not over each.

    Raises:
        UserError: If a value breaks its rule.

    Example:
        >>> Recipe(epochs=200, schedule="step", milestones=(60, 120, 160)).weight_decay
        0.0005
    """

    epochs: int = 8
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "onecycle"
    warmup_epochs: float | None = None
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    gamma: float = 0.2
    label_smoothing: float = 0.0
    precision: str = "auto"
    channels_last: str = "auto"
    augment: bool = True
    accumulate: int = 1
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_rate: float = 0.0
    drop_path: float = 0.0
    sync_bn: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        check_count("epochs", self.epochs, 1, MOST)
        # BatchNorm cannot train on a single image
        check_count("batch_size", self.batch_size, 2, MOST)
        check_count("accumulate", self.accumulate, 1, MOST)
        for name, (rule, holds) in NUMBERS.items():
            check_number(name, getattr(self, name), rule, holds)
        if self.optimizer == "sgd" and self.momentum == 0:
            raise UserError(
                "momentum must be above 0 for optimizer 'sgd', which is Nesterov's; got 0"
                " ('momentum' allows it)"
            )
        if self.warmup_epochs is not None:
            check_number(
                "warmup_epochs",
                self.warmup_epochs,
                f"from 0 to below epochs ({self.epochs})",
                lambda value: 0 <= value < self.epochs,
            )
        self.check_milestones()
        for name in ("augment", "sync_bn"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false; got {getattr(self, name)!r}")

    def check_milestones(self) -> None:
        if not isinstance(self.milestones, tuple | list):
            raise UserError(f"milestones must be a list of numbers; got {self.milestones!r}")
        # a list, as JSON has it, would not be equal
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            check_number("milestones", milestone, "above 0", lambda value: value > 0)
        ends = [
            milestone * self.epochs if milestone < 1 else milestone for milestone in self.milestones
        ]
        if any(later <= earlier for earlier, later in pairwise(ends)):
            raise UserError(f"milestones must grow; got {self.milestones}")
        if self.schedule == "step" and ends and ends[-1] >= self.epochs:
            raise UserError(
                f"milestones must lie before the end of the run (epochs is {self.epochs}); got"
                f" {self.milestones}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, but for later ones that are off."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {
            name: value
            for name, value in values.items()
            if name not in LATER or value != getattr(Recipe, name)
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def differing_from(self, other: "Recipe") -> dict[str, Any]:
        """The fields, as JSON has them, that this recipe has otherwise than `other`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {name: value for name, value in values.items() if value != getattr(other, name)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def check_count(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        bound = (
            f"at most {most:,}" if isinstance(value, int) and value > most else f"at least {least}"
        )
        raise UserError(f"{name} must be a whole number, {bound}; got {shown(value)}")


def shown(value: object) -> str:
    """Returns a value as it was given, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return repr(value)[:60]


def check_number(name: str, value: object, rule: str, holds: Callable[[float], bool]) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST or not holds(value):  # pyrefly: ignore
        raise UserError(f"{name} must be a number {rule}; got {shown(value)}")
