"""Decodes the bytes of an image file into pixels; every error names the image."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cpsam.data.split import Pixels
from cpsam.errors import DataError
from cpsam.files import read_file

# No other format is tried, whatever the name or the first bytes of a file claim.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")
MAX_IMAGE_BYTES = 1 << 29
MAX_ASPECT = 1000

# The first warning is an error here. The second changes no pixel: ImageNet has images with damaged
# EXIF data.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns every error of a decoder into a DataError about `where`.

    Decoders document no closed list of what they raise on damaged input.
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        # Pillow's own words name an object in memory.
        raise DataError(
            f"{where}: not an image that can be decoded (cannot identify it as one of"
            f" {', '.join(FORMATS)})"
        ) from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{where}: not an image that can be decoded ({reason})") from error


def read_image(path: Path | str) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        DataError: If it cannot be read, is not a regular file, or is too large.
    """
    try:
        return read_file(Path(path), MAX_IMAGE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def refuse_pointer(data: bytes, where: str) -> None:
    """Refuses the pointer that Git LFS leaves for a file that was not fetched."""
    if data.startswith(b"version https://git-lfs"):
        raise DataError(
            f"{where}: a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
        )


@contextmanager
def open_image(data: bytes, where: str) -> Iterator[Image.Image]:
    """Opens one still image without decoding its pixels.

    Args:
        data: The bytes of an image file.
        where: Names the image in errors. If it ends in .tga, the image may be a Targa, which its
            bytes do not tell.

    Raises:
        DataError: If it is not such an image, is animated, or claims so many pixels that it may be
            a decompression bomb. Any error while it is open becomes a DataError too.
    """
    refuse_pointer(data, where)
    formats = (*FORMATS, "TGA") if where.lower().endswith(".tga") else FORMATS
    with reading(where), Image.open(BytesIO(data), formats=formats) as image:
        if (
            Image.MAX_IMAGE_PIXELS is not None
            and image.width * image.height > Image.MAX_IMAGE_PIXELS
        ):
            raise DataError(
                f"{where}: image of {image.width}x{image.height} pixels, it may be a decompression"
                " bomb; make it smaller"
            )
        # Resized by its shorter side, it would fill the memory.
        if max(image.size) > MAX_ASPECT * min(image.size):
            limit = f"one side must be at most {MAX_ASPECT:,} times the other"
            raise DataError(f"{where}: image of {image.width}x{image.height} pixels; {limit}")
        frames = getattr(image, "n_frames", 1)
        # MPO: a telephone's JPEG with a preview behind the photograph.
        if frames > 1 and image.format != "MPO":
            raise DataError(f"{where}: animated image of {frames} frames; keep one of them")
        yield image


def to_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{where}: image has mode {image.mode!r}, more than 8 bits per channel: convert it to"
            " 8-bit RGB or grey"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def decode_exact(data: bytes, size: tuple[int, int], where: str) -> Pixels:
    """Decodes an image that must have a given size.

    Args:
        data: The bytes of an image file.
        size: (H, W).
        where: Names the image in errors.

    Returns:
        RGB, (H, W, 3).

    Raises:
        DataError: If it does not decode, or has another size. The size is checked before the pixels
            are decoded.
    """
    with open_image(data, where) as image:
        if (image.height, image.width) != size:
            raise DataError(
                f"{where}: image is {image.height}x{image.width}, not {size[0]}x{size[1]}"
            )
        return np.asarray(to_rgb(image, where))


def decode_square(path: Path, size: int) -> Pixels:
    """Decodes an image file into a square.

    The image is turned upright (EXIF), its shorter side is resized to `size`, and the square in its
    centre is cut out.

    Args:
        path: An image file.
        size: Pixels.

    Returns:
        RGB, (size, size, 3).

    Raises:
        DataError: If it does not decode, or claims so many pixels that it may be a decompression
            bomb.
    """
    where = str(path)
    with open_image(read_image(path), where) as image:
        # A JPEG is read at 1/2, 1/4 or 1/8 in a fraction of the time. At twice the size that is
        # needed, no sharpness is lost.
        image.draft(None, (2 * size, 2 * size))
        upright = to_rgb(ImageOps.exif_transpose(image), where)
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC))
