"""Estimates how long a run takes, from two timed steps."""

import copy
import time

import torch
from torch import nn

from cpsam.config.recipe import Recipe
from cpsam.measure import synchronize
from cpsam.seeds import generator
from cpsam.train.compute import Compute, find_device, reproducible
from cpsam.train.distributed import Distributed
from cpsam.train.step import TrainStep

STEPS = 2
STEP_SECONDS = 1.5  # A timed step has as many images as fit into this time.
# A step is a forward and a backward pass, and the backward pass costs two forwards.
EVALUATION_FRACTION = 1 / 3


def seconds_per_image(
    model: nn.Module,
    recipe: Recipe,
    image_shape: tuple[int, int, int],
    num_classes: int,
    compute: Compute,
    device: torch.device | str | None = None,
) -> float:
    """Times two training steps on random images and returns their seconds per image.

    A step has at most `recipe.batch_size` images, and fewer where the whole batch would take long.
    The time to load images is not included.

    Args:
        model: The network, whose weights stay as they are: a copy is trained.
        recipe: How it is trained.
        image_shape: (C, H, W) of its images.
        num_classes: Width of its logits.
        compute: Precision, memory format and threads of the run, from
            :func:`cpsam.train.compute.choose_compute`.
        device: Where it is trained; by default the GPU if there is one.
    """
    target = find_device(device)
    with reproducible(compute, target):
        model = copy.deepcopy(model).to(target).to(memory_format=compute.memory_format).train()
        train_step = TrainStep(
            model,
            recipe,
            seed=0,
            num_classes=num_classes,
            compute=compute,
            device=target,
            distributed=Distributed(),
        )
        draw = generator(0, "pace")

        def seconds(images: int, step: int) -> float:
            pixels = draw.standard_normal((images, *image_shape), dtype="float32")
            x = torch.from_numpy(pixels).to(target).contiguous(memory_format=compute.memory_format)
            y = torch.from_numpy(draw.integers(0, num_classes, images)).to(target)
            synchronize()
            started = time.perf_counter()
            train_step.compute_gradients(x, y, step, images)
            train_step.apply(recipe.lr)
            synchronize()
            return time.perf_counter() - started

        images = min(2, recipe.batch_size)
        seconds(images, 0)  # The first step also allocates and chooses kernels.
        while images < recipe.batch_size and (taken := seconds(images, 1)) < STEP_SECONDS / 2:
            factor = max(2, int(STEP_SECONDS / 4 / max(taken, 1e-3)))
            images = min(recipe.batch_size, images * factor)
        return sum(seconds(images, step) for step in range(STEPS)) / (STEPS * images)


def run_seconds(per_image: float, recipe: Recipe, train_images: int, test_images: int) -> float:
    """Returns the estimated seconds of all steps and of the evaluation after each epoch."""
    return per_image * recipe.epochs * (train_images + EVALUATION_FRACTION * test_images)
