"""Data sets by name."""

import os
from pathlib import Path

from cpsam.data.cifar import SOURCES, load_cifar
from cpsam.data.dataset import Dataset, Progress
from cpsam.data.digits import load_digits
from cpsam.data.folder import load_folder
from cpsam.errors import DataError, UserError, unknown

DATASETS = ("digits", "cifar10", "cifar100", "folder")


def load_dataset(
    name: str, root: str | os.PathLike[str] | None = None, *, image_size: int | None = None, progress: Progress | None = None
) -> Dataset:
    """Load a data set as bytes.

    Files of images are decoded once, into a memory-mapped file in the folder ``CPSAM_CACHE``, by default ``~/.cache/cpsam``.

    Args:
        name: ``"digits"`` (shipped), ``"cifar10"``, ``"cifar100"``, or ``"folder"``, a person's own images.
        root: The folder of data sets, in which ``cifar100/`` lies; for ``"folder"`` the tree of images itself. Default: ``CPSAM_DATA``;
            where that is not set either, a CIFAR is fetched from the Hugging Face hub.
        image_size: Height and width of the images of a folder, default 224. The others have a size of their own.
        progress: Called with what is being done, how many images are done, and how many there are.

    Raises:
        UserError: If there is no such data set, or it has a size of its own.
        DataError: If its files are missing or bad.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train, digits.num_classes, digits.image_size
        (Split(1438 images of 1x16x16), 10, (16, 16))
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    if image_size is not None and name != "folder":
        raise UserError(f"image_size is for folder, {name} has a size of its own; given {image_size}")
    place = root or os.environ.get("CPSAM_DATA") or None
    folder = None if place is None else Path(place).expanduser()
    if name == "digits":
        return load_digits()
    if name in SOURCES:
        return load_cifar(name, folder, progress)
    if folder is None:
        raise DataError("no folder of images given; name it with --data-root or CPSAM_DATA")
    return load_folder(folder, 224 if image_size is None else image_size, progress)
