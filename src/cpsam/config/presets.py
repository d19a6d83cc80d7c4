"""Defines presets: a recipe, the data and the network under one name.

Each docstring has the command, the expected result and the cost. "Recalled" marks figures that
were not read again in their source. "Arithmetic" marks figures that were computed, not measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.errors import unknown


@dataclass(frozen=True)
class Preset:
    """Holds the fields of a training command. The block is not one of them.

    Args:
        recipe: How to train.
        task: Fields of the task: the data, the network and the places in it.
        needs: Fields of the task that have to be given.
    """

    recipe: Recipe
    task: Mapping[str, Any]
    needs: tuple[str, ...] = field(default=())


def cifar100_200ep() -> Preset:
    """Trains a ResNet-18 on CIFAR-100 for 200 epochs; the learning rate drops three times.

    Command:
        ``cpsam train --preset cifar100-200ep --data-root DATA --out RUN``

    Expected:
        Not run here yet. Others report for the bare ResNet-18 75.61 % top-1 (one run, its best
        epoch on the test set) and 76.22 +- 0.21 % (five runs). The same network differs between
        code bases by more than blocks differ, so compare within one code base only.

    Cost:
        0.556 G multiply-adds per image forward, and three times that in training: 1.7e16 for the
        run (arithmetic).
    """
    recipe = Recipe(
        epochs=200,
        batch_size=128,
        optimizer="momentum",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        milestones=(60, 120, 160),
        gamma=0.2,
        warmup_epochs=1,
    )
    return Preset(recipe, {"data": "cifar100", "model": "resnet18", "at": ("before-last",)})


def cifar100_fast() -> Preset:
    """Trains a ResNet-20 on CIFAR-100 in minutes: eight epochs with a one-cycle schedule.

    Command:
        ``cpsam train --preset cifar100-fast --data-root DATA --out RUN``

    Expected:
        58 % top-1 for the bare ResNet-20, with an sd of 0.3 to 0.4 points between seeds (single
        runs of earlier code, on the test set).

    Cost:
        About 50 seconds per epoch on two cores with AMX, so seven minutes.
    """
    recipe = Recipe(
        epochs=8,
        batch_size=128,
        optimizer="sgd",
        lr=0.3,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="onecycle",
    )
    return Preset(recipe, {"data": "cifar100", "model": "resnet20", "at": ("before-last",)})


def imagenet_120ep() -> Preset:
    """Trains a ResNet-50 on ImageNet-1k from scratch for 120 epochs, with a block in every residual
    block of c3 to c5, as the paper of global context does.

    Without the warm-up, blocks in every bottleneck get stuck at a high loss. Weight decay 1e-4 is
    that of a comparison of SE, BAM and CBAM. Five epochs of warm-up, and crop and mirror as the
    only augmentation, are our choices.

    Command:
        ``torchrun --nproc-per-node 8 -m cpsam.cli train --preset imagenet-120ep --data-root DATA
        --out RUN``

    Expected:
        Not run here. The paper of global context, as recalled: 76.88 % top-1 bare, 77.70 % with a
        block everywhere.

    Cost:
        1.9e18 multiply-adds (arithmetic: 4.1 G per image, times 3, times 1.28 M images, times 120).
        A GPU that trains 2,500 images per second (recalled, of the A100 class) takes 17 hours, and
        eight take a little over 2.
    """
    recipe = Recipe(
        epochs=120,
        batch_size=256,
        optimizer="momentum",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="cosine",
        warmup_epochs=5,
    )
    return Preset(recipe, {"data": "imagenet", "model": "timm/resnet50", "at": ("gc-c3-c5",)})


def imagenet_finetune_40ep() -> Preset:
    """Trains a pretrained ResNet-50 on ImageNet-1k for 40 more epochs, with one block at the end of
    c4, as the paper of global context does.

    Command:
        ``torchrun --nproc-per-node 8 -m cpsam.cli train --preset imagenet-finetune-40ep --weights
        WEIGHTS --data-root DATA --out RUN``

    Expected:
        Not run here. The paper, as recalled: 76.88 % top-1 bare, 77.20 % with Non-Local, 77.28 %
        with simplified Non-Local, 77.34 % with global context.

    Cost:
        A third of that of `imagenet-120ep`: 6 hours on one such GPU (arithmetic).
    """
    recipe = Recipe(
        epochs=40,
        batch_size=256,
        optimizer="momentum",
        lr=0.02,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="cosine",
    )
    return Preset(
        recipe,
        {"data": "imagenet", "model": "timm/resnet50", "at": ("nl-c4-last",)},
        needs=("weights",),
    )


def cued_digits() -> Preset:
    """Trains a ResNet-8 on strips whose label needs context, with a block after the first stage.

    With the block one stage later, some seeds did not learn to use the cue in time. Perhaps the
    features there no longer tell bright strokes from dark ones.

    Command:
        ``cpsam train --preset cued-digits --out RUN``

    Expected:
        At most 55 % top-1 without a block that sees the whole strip, and at least 90 % with CPSAM
        or Non-Local.

    Cost:
        About half a minute of one core with CPSAM; one to three and a half with Non-Local.
    """
    recipe = Recipe(epochs=4, batch_size=32, precision="float32")
    return Preset(recipe, {"data": "cued-digits", "model": "resnet8", "at": ("layer1.0",)})


PRESETS: dict[str, Callable[[], Preset]] = {
    "cued-digits": cued_digits,
    "cifar100-200ep": cifar100_200ep,
    "cifar100-fast": cifar100_fast,
    "imagenet-120ep": imagenet_120ep,
    "imagenet-finetune-40ep": imagenet_finetune_40ep,
}


def find_preset(name: str) -> Preset:
    """Returns the preset of this name.

    Raises:
        UserError: If there is none.

    Example:
        >>> find_preset("cifar100-200ep").recipe.milestones
        (60, 120, 160)
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]()


def preset_for(data: str) -> Preset:
    """Returns the preset with the name of a data set; without one, the defaults.

    Example:
        >>> preset_for("cued-digits").task["model"], preset_for("cifar100").task
        ('resnet8', {})
    """
    return PRESETS[data]() if data in PRESETS else Preset(Recipe(), {})
