"""Loads data sets by name.

A new data set is a function in a file of its own in `sets/`, and a line in `DATASETS` here.
"""

import os
from collections.abc import Callable, Set
from pathlib import Path

from cpsam.config.transform import Transform
from cpsam.data.dataset import Dataset
from cpsam.data.load_options import LoadOptions
from cpsam.data.sets.cifar import load_cifar10, load_cifar100
from cpsam.data.sets.cued_digits import load_cued_digits
from cpsam.data.sets.digits import load_digits
from cpsam.data.sets.folder import load_folder
from cpsam.data.sets.imagenet import load_imagenet
from cpsam.data.sets.majority_cue import load_majority_cue
from cpsam.data.sets.recall import load_recall
from cpsam.data.split import OnProgress
from cpsam.errors import DataError, unknown

# Each takes the folder that holds the data, None if there is none, and how to load it.
DATASETS: dict[str, Callable[[Path | None, LoadOptions], Dataset]] = {
    "digits": load_digits,
    "cued-digits": load_cued_digits,
    "majority-cue": load_majority_cue,
    "recall": load_recall,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "imagenet": load_imagenet,
    "folder": load_folder,
}


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    stream: bool | None = None,
    transform: Transform | None = None,
    workers: int | None = None,
    skip: Set[str] = frozenset(),
    image_column: str | None = None,
    label_column: str | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Loads a data set by its name.

    Small images are decoded once, and held as bytes in memory-mapped files in the folder
    ``CPSAM_CACHE``, by default ``~/.cache/cpsam``. The images of a large set are streamed: each
    file is read when its batch needs it.

    Args:
        name: ``"digits"``, ``"cued-digits"``, ``"majority-cue"`` or ``"recall"`` (in the package),
            ``"cifar10"``, ``"cifar100"``, ``"imagenet"``, or ``"folder"``, a person's own images.
        root: The folder of data sets, in which ``cifar100/`` lies; for ``"folder"`` the set itself,
            as it may be for ``"imagenet"``. Default: ``CPSAM_DATA``; where that is not set either,
            a CIFAR is fetched from the Hugging Face hub.
        image_size: Height and width of the images of a folder or of ImageNet, default 224. The
            other data sets have a size of their own.
        stream: Whether to stream a folder; None streams it from 8 GiB of decoded pixels on.
            ImageNet is always streamed, the others never.
        transform: Of streamed images.
        workers: Processes that make batches of streamed images, 0 for the one that trains; None:
            the processors, 16 at most.
        skip: Bad images to leave out of a folder or of ImageNet, as
            :func:`cpsam.data.verify.verify` names them.
        image_column: Of parquet shards: the struct column with the field ``bytes``. None: ``image``
            or ``img``.
        label_column: Of parquet shards: the column of whole numbers or texts. None: ``label``,
            ``fine_label`` or the like.
        progress: Called with what is being done, how much is done, and how much there is.

    Raises:
        UserError: If there is no such data set, or it has no use for an argument.
        DataError: If its files are missing or bad.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train, digits.num_classes, digits.image_size
        (Split(1438 images of 1x16x16), 10, (16, 16))
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    options = LoadOptions(
        image_size=image_size,
        stream=stream,
        transform=transform,
        workers=workers,
        skip=skip,
        image_column=image_column,
        label_column=label_column,
        progress=progress,
    )
    given = root or os.environ.get("CPSAM_DATA") or None
    return DATASETS[name](None if given is None else expanded(given), options)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path whose ``~`` is the home folder.

    Raises:
        DataError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"no folder {os.fspath(path)}: {error}") from error
