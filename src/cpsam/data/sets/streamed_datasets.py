"""Makes streamed data sets of trees of images and of parquet shards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cpsam.data.dataset import Dataset
from cpsam.data.image_transforms import MEAN, STD, training
from cpsam.data.load_options import LoadOptions
from cpsam.data.loader.image_source import Files, ImageSource, Rows
from cpsam.data.parallel import map_ordered
from cpsam.data.split import Indices
from cpsam.data.storage.shard_labels import NONE, read_shards
from cpsam.data.storage.tree import Tree
from cpsam.data.storage.unpacked_shard import unpack
from cpsam.data.streamed_split import StreamedSplit
from cpsam.files import hash_json


def stream_tree(name: str, root: Path, tree: Tree, options: LoadOptions) -> Dataset:
    """Returns the data set of the files of a tree.

    No file is read: names and sizes stand for what is in them.
    """
    splits = {
        split: (Files(root, part.paths), part.labels, np.arange(len(part.paths)))
        for split, part in tree.parts.items()
    }
    content = [[part.paths, [size for size, _ in part.stamps]] for part in tree.parts.values()]
    dataset = streamed(name, splits, tree.parts["train"].classes, content, options)
    return replace(dataset, note=tree.note, notes=tree.notes)


def stream_shards(name: str, root: Path, options: LoadOptions) -> Dataset:
    """Returns the data set of parquet shards; each is unpacked into the cache."""
    shards = read_shards(root, options.image_column, options.label_column, options.skip)
    paths = [path for files in shards.files.values() for path in files]
    unpacked = map_ordered(lambda path: unpack(path, *shards.columns), paths)
    tables = {}
    for path, table in zip(paths, unpacked, strict=True):
        tables[path] = table
        if options.progress is not None:
            options.progress("unpacking shards", len(tables), len(paths))
    splits = {}
    for split, files in shards.files.items():
        labels = shards.joined(split)
        counts = [len(shards.labels[path]) for path in files]
        source = Rows([tables[path] for path in files], counts)
        splits[split] = source, labels, np.flatnonzero(labels != NONE)
    content = [
        [[path.name, path.stat().st_size] for path in files] for files in shards.files.values()
    ]
    return replace(streamed(name, splits, shards.classes, content, options), notes=shards.notes)


def streamed(
    name: str,
    splits: Mapping[str, tuple[ImageSource, Indices, Indices]],
    classes: Sequence[str],
    content: object,
    options: LoadOptions,
) -> Dataset:
    """Returns a data set of which only names and labels are in memory.

    It is normalised by mean and standard deviation of ImageNet.

    Args:
        name: One of `DATASETS`.
        splits: The files of "train" and "test", the label of each, (N,), and the numbers of those
            that are used.
        classes: Names.
        content: Plain data that stands for what is in the files: a hash would have to read them
            all.
        options: How to load it.

    Raises:
        UserError: If timm does not understand the transform.
    """
    size, transform = options.size, options.streaming
    if transform.rand_augment:
        training(transform, size)
    train, test = (
        StreamedSplit(
            source, torch.from_numpy(labels[rows]), rows, size, transform, workers=options.loaders
        )
        for source, labels, rows in (splits["train"], splits["test"])
    )
    used = [[split.rows.tolist(), split.labels.tolist()] for split in (train, test)]
    return Dataset(
        name,
        train,
        test,
        tuple(classes),
        MEAN,
        STD,
        padding=0,
        flip=True,
        fingerprint=hash_json(["cpsam stream 1", list(classes), content, used]),
        skipped=tuple(sorted(options.skip)),
    )
