"""Data sets whose images are read while they are needed: trees of images and parquet shards."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpsam.config.transform import Transform
from cpsam.data.dataset import Dataset
from cpsam.data.image_transforms import MEAN, STD, training
from cpsam.data.loader.image_source import Files, ImageSource, Rows
from cpsam.data.parallel import map_ordered
from cpsam.data.split import Indices, OnProgress
from cpsam.data.storage.shard_labels import NONE, read_shards
from cpsam.data.storage.tree import Tree
from cpsam.data.storage.unpacked_shard import unpack
from cpsam.data.streamed_split import StreamedSplit
from cpsam.errors import UserError
from cpsam.files import hash_json

# the image and the label column; None: those that sets of the hub have
Columns = tuple[str | None, str | None]


def check_columns(columns: Columns, root: Path) -> None:
    """Refuses names of columns for what has none."""
    for argument, value in zip(("image_column", "label_column"), columns, strict=True):
        if value is not None:
            raise UserError(f"{argument} is for parquet shards; {root} has none; given {value!r}")


def stream_folder(
    name: str, root: Path, tree: Tree, size: int, transform: Transform, workers: int, skip: Set[str]
) -> Dataset:
    """Returns the data set of these files, none of which has been read: their names and sizes stand
    for what is in them.
    """
    parts = tree.parts
    splits = {
        split: (Files(root, part.paths), part.labels, np.arange(len(part.paths)))
        for split, part in parts.items()
    }
    content = [[part.paths, [size for size, _ in part.stamps]] for part in parts.values()]
    how: dict[str, Any] = {
        "size": size,
        "transform": transform,
        "workers": workers,
        "note": tree.note,
        "skip": skip,
        "notes": tree.notes,
    }
    return streamed(name, splits, parts["train"].classes, content, **how)


def stream_shards(
    name: str,
    root: Path,
    size: int,
    progress: OnProgress | None,
    transform: Transform,
    workers: int,
    skip: Set[str],
    columns: Columns,
) -> Dataset:
    """Returns the data set of parquet shards, each of which is unpacked into the cache."""
    shards = read_shards(root, *columns, skip)
    paths = [path for files in shards.files.values() for path in files]
    tables = {}
    for path, table in zip(
        paths, map_ordered(lambda path: unpack(path, *shards.columns), paths), strict=True
    ):
        tables[path] = table
        if progress is not None:
            progress("unpacking shards", len(tables), len(paths))
    splits = {}
    for split, files in shards.files.items():
        labels = shards.joined(split)
        source = Rows(
            [tables[path] for path in files], [len(shards.labels[path]) for path in files]
        )
        splits[split] = source, labels, np.flatnonzero(labels != NONE)
    content = [
        [[path.name, path.stat().st_size] for path in files] for files in shards.files.values()
    ]
    how: dict[str, Any] = {
        "size": size,
        "transform": transform,
        "workers": workers,
        "skip": skip,
        "notes": shards.notes,
    }
    return streamed(name, splits, shards.classes, content, **how)


def streamed(
    name: str,
    splits: Mapping[str, tuple[ImageSource, Indices, Indices]],
    classes: Sequence[str],
    content: object,
    *,
    size: int,
    transform: Transform,
    workers: int,
    note: str = "",
    skip: Set[str] = frozenset(),
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Returns a data set of which nothing but names and labels is in memory. It is normalised by
    the mean and sd of ImageNet.

    Args:
        name: One of `DATASETS`.
        splits: The files of "train" and "test", the label of each, (N,), and the numbers of those
            that are used.
        classes: Names.
        content: Plain data that stands for what is in the files: to hash them would be to read them
            all.
        size: Height and width that images get.
        transform: How they get there.
        workers: Processes that make batches.
        note: As in :class:`cpsam.data.Dataset`.
        skip: Images that are not used.
        notes: As in :class:`cpsam.data.Dataset`.

    Raises:
        UserError: If timm does not understand the transform.
    """
    if transform.rand_augment:
        training(transform, size)
    train, test = (
        StreamedSplit(
            source, torch.from_numpy(labels[rows]), rows, size, transform, workers=workers
        )
        for source, labels, rows in (splits["train"], splits["test"])
    )
    used = [[split.rows.tolist(), split.labels.tolist()] for split in (train, test)]
    fingerprint = hash_json(["cpsam stream 1", list(classes), content, used])
    skipped = tuple(sorted(skip))
    return Dataset(
        name, train, test, tuple(classes), MEAN, STD, 0, True, fingerprint, note, skipped, notes
    )
