"""From the bytes of an image file to pixels, with an error that says which image it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cpsam.data.split import Pixels
from cpsam.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # no others are tried, whatever a file's name or its first bytes claim


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged input into a DataError about `where`: they document no closed list of it."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{where}: not an image that can be decoded ({reason})") from error


@contextmanager
def open_image(source: Path | bytes, where: str) -> Iterator[Image.Image]:
    """Open one still picture of a kind that is read, its pixels not yet decoded.

    Args:
        source: An image file, or its bytes.
        where: Names the image in errors.

    Raises:
        DataError: If it is not such a picture, is animated, or claims so many pixels that it may be a decompression bomb. Whatever goes
            wrong while it is open is one too.
    """
    with reading(where), Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise DataError(f"{where}: image of {image.width}x{image.height} pixels, it may be a decompression bomb; make it smaller")
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a telephone's JPEG with a preview behind the photograph
            raise DataError(f"{where}: animated image of {frames} frames; keep one of them")
        yield image


def to_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{where}: image has mode {image.mode!r}, more than 8 bits a channel: convert it to 8-bit RGB or grey")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def decode_exact(data: bytes, size: tuple[int, int], where: str) -> Pixels:
    """Decode an image that must have a given size.

    Args:
        data: The bytes of an image file.
        size: (H, W).
        where: Names the image in errors.

    Returns:
        RGB, (H, W, 3).

    Raises:
        DataError: If it does not decode, or has another size, which is looked at before its pixels are.
    """
    with open_image(data, where) as image:
        if (image.height, image.width) != size:
            raise DataError(f"{where}: image is {image.height}x{image.width}, not {size[0]}x{size[1]}")
        return np.asarray(to_rgb(image, where))


def decode_square(path: Path, size: int) -> Pixels:
    """Decode an image file, turn it upright (EXIF), resize its shorter side to `size` and cut the square out of its centre.

    Args:
        path: JPEG, PNG, WebP or BMP.
        size: Pixels.

    Returns:
        RGB, (size, size, 3).

    Raises:
        DataError: If it does not decode, or claims so many pixels that it may be a decompression bomb.
    """
    where = str(path)
    with open_image(path, where) as image:
        # A JPEG can be read at 1/2, 1/4, 1/8 for a fraction of the time; at twice the size wanted that costs no sharpness.
        image.draft(None, (2 * size, 2 * size))
        upright = to_rgb(ImageOps.exif_transpose(image), where)
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC))
