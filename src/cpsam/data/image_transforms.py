"""Turns an image of any size into the square that a network sees, by timm's transforms.

The generators that the transforms draw from are seeded per sample. The result is bytes:
:func:`cpsam.data.batches.normalise` normalises on the device, which receives a quarter of the data.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from PIL.Image import Image

from cpsam.config.transform import Transform
from cpsam.data.decode import to_rgb
from cpsam.data.split import Pixels
from cpsam.errors import UserError
from cpsam.seeds import derive_seed

# ImageNet's. To measure those of a streamed set, all its images would have to be decoded.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ERASED = np.array([round(255 * value) for value in MEAN], np.int16)  # zero after normalisation


def train_pixels(image: Image, transform: Transform, size: int, where: str) -> Pixels:
    """Augments an open image with draws of the global generators.

    Args:
        image: From :func:`cpsam.data.decode.open_image`.
        transform: How it is augmented.
        size: Height and width of what comes out.
        where: Names the image in errors.

    Returns:
        (size, size, 3).
    """
    change, erase = training(transform, size)
    return erase(
        np.asarray(
            change(upright(image, math.ceil(2 * size / math.sqrt(transform.min_crop)), where))
        )
    )


def eval_pixels(image: Image, transform: Transform, size: int, where: str) -> Pixels:
    """Resizes the shorter side to ``size / test_crop`` and cuts the square out of the centre.

    The arguments are those of :func:`train_pixels`; nothing is drawn.
    """
    pixels = evaluation(transform, size)(
        upright(image, math.ceil(2 * size / transform.test_crop), where)
    )
    return np.asarray(pixels).transpose(1, 2, 0)


def upright(image: Image, enough: int, where: str) -> Image:
    """Returns an image as RGB, turned as its EXIF data says.

    A large JPEG is read at 1/2, 1/4 or 1/8 if that leaves `enough` pixels per side.
    """
    image.draft(None, (enough, enough))
    return to_rgb(ImageOps.exif_transpose(image), where)


@cache
def training(
    transform: Transform, size: int
) -> tuple[Callable[[Image], Image], Callable[[Pixels], Pixels]]:
    """Returns timm's transforms of the image, and its random erasing of bytes.

    Raises:
        UserError: If timm does not understand `rand_augment`.
    """
    # Imported here because it takes seconds, and images held as bytes do not need it.
    from timm.data import create_transform
    from timm.data.random_erasing import RandomErasing
    from torchvision.transforms import Compose

    try:
        steps: Any = create_transform(
            size,
            is_training=True,
            scale=(transform.min_crop, 1.0),
            color_jitter=transform.color_jitter or None,  # pyrefly: ignore
            auto_augment=transform.rand_augment or None,
            interpolation=transform.interpolation,
            separate=True,
        )
        first, second, _ = steps
    except Exception as error:  # timm asserts, and converts words to numbers
        reason = str(error) or type(error).__name__
        raise UserError(
            f"timm does not understand rand_augment {transform.rand_augment!r} ({reason})"
        ) from error
    draw = RandomErasing(transform.random_erasing, mode="const", device="cpu")

    def erase(pixels: Pixels) -> Pixels:
        if not transform.random_erasing:
            return pixels
        # timm paints zeros. They become the mean colour, because values count from there here.
        shifted = torch.from_numpy((pixels - ERASED).transpose(2, 0, 1))
        return (draw(shifted).numpy().transpose(1, 2, 0) + ERASED).astype(np.uint8)

    return Compose([first, second]), erase


@cache
def evaluation(transform: Transform, size: int) -> Callable[[Image], Any]:
    from timm.data import create_transform

    interpolation = "bilinear" if transform.interpolation == "random" else transform.interpolation
    crop: Any = transform.test_crop
    steps: Any = create_transform(
        size, crop_pct=crop, interpolation=interpolation, use_prefetcher=True
    )
    return steps


def seed_sample(seed: int, epoch: int, sample: int) -> None:
    """Seeds the generators of python, numpy and torch, from which transforms draw.

    What they draw then depends only on the arguments.
    """
    value = derive_seed(seed, "augment", epoch, sample)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restores these generators afterwards: in the process that trains, others use them too."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
