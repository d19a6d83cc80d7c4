"""Data sets by name."""

import os
from collections.abc import Set
from pathlib import Path

from cpsam.config.transform import Transform
from cpsam.data.dataset import Dataset
from cpsam.data.parallel import default_workers
from cpsam.data.sets.cifar import HUB_DATASETS, load_cifar
from cpsam.data.sets.digits import load_digits
from cpsam.data.sets.folder import load_folder
from cpsam.data.sets.imagenet import load_imagenet
from cpsam.data.split import OnProgress
from cpsam.errors import DataError, UserError, unknown

DATASETS = ("digits", "cifar10", "cifar100", "imagenet", "folder")
OWN_SIZE = ("digits", *HUB_DATASETS)


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
    """Load a data set: as bytes, or, where it is large, as the names of files that are read while
    they are needed.

    Files that are not streamed are decoded once, into a memory-mapped file in the folder
    ``CPSAM_CACHE``, by default ``~/.cache/cpsam``.

    Args:
        name: ``"digits"`` (shipped), ``"cifar10"``, ``"cifar100"``, ``"imagenet"``, or
            ``"folder"``, a person's own images.
        root: The folder of data sets, in which ``cifar100/`` lies; for ``"folder"`` the set itself,
            as it may be for ``"imagenet"``. Default: ``CPSAM_DATA``; where that is not set either,
            a CIFAR is fetched from the Hugging Face hub.
        image_size: Height and width of the images of a folder or of ImageNet, default 224. The
            others have a size of their own.
        stream: Of a folder: whether to stream it; None does from 8 GiB of decoded pixels on.
            ImageNet always is, the others never are.
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
    if name in OWN_SIZE:
        how = None if transform == Transform() else transform
        refuse(name, image_size=image_size, stream=stream or None, transform=how, skip=skip or None)
        refuse(name, image_column=image_column, label_column=label_column)
    elif name == "imagenet" and stream is False:
        raise UserError("imagenet is always streamed; a folder with stream=False is not")
    if workers is not None and workers < 0:
        raise UserError(f"workers must be at least 0; got {workers}")
    given = root or os.environ.get("CPSAM_DATA") or None
    folder = None if given is None else expanded(given)
    if name == "digits":
        return load_digits()
    if name in HUB_DATASETS:
        return load_cifar(name, folder, progress)
    if folder is None:
        raise DataError(
            f"no folder {'of images' if name == 'folder' else 'with ImageNet'} given; name it with"
            " `root` or CPSAM_DATA"
        )
    size = 224 if image_size is None else image_size
    if size < 1:
        raise UserError(f"image_size must be at least 1, not {size}")
    count = default_workers() if workers is None else workers
    columns = image_column, label_column
    if name == "imagenet":
        return load_imagenet(
            folder, size, progress, transform=transform, workers=count, skip=skip, columns=columns
        )
    return load_folder(
        folder,
        size,
        progress,
        stream=stream,
        transform=transform,
        workers=count,
        skip=skip,
        columns=columns,
    )


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path whose ``~`` is the home folder.

    Raises:
        DataError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"no folder {os.fspath(path)}: {error}") from error


def refuse(name: str, **given: object) -> None:
    for argument, value in given.items():
        if value is not None:
            kind = "has a size of its own" if argument == "image_size" else "is held as bytes"
            kind = "has columns of its own" if argument.endswith("column") else kind
            raise UserError(f"{argument} is for folder and imagenet, {name} {kind}; given {value}")
