"""Loads a person's own images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cpsam.data.dataset import Dataset
from cpsam.data.decode import decode_square
from cpsam.data.load_options import LoadOptions, require_root
from cpsam.data.parallel import map_ordered
from cpsam.data.sets.streamed_datasets import stream_shards, stream_tree
from cpsam.data.split import Pixels
from cpsam.data.storage.decoded_cache import UndecodedSplits, load_or_build
from cpsam.data.storage.shard_files import has_shards
from cpsam.data.storage.tree import read_tree
from cpsam.errors import UserError
from cpsam.files import hash_json

IMAGES_PER_TASK = 16
STREAM_ABOVE_BYTES = 8 << 30  # of decoded images: 57,065 of 224x224


def load_folder(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads your own images, from a folder per class or from parquet shards.

    :func:`cpsam.data.storage.tree.read_tree` finds them in ``root/train/CLASS/`` and
    ``root/val/CLASS/``. Without a split to measure on, a stratified fifth of ``root/train/CLASS/``
    or ``root/CLASS/`` is the test split. Parquet shards are read by
    :func:`cpsam.data.storage.shard_labels.read_shards` instead, and streamed.

    Images are turned upright, and the shorter side is resized to `image_size`. The square in the
    centre is kept as bytes in a memory-mapped file of the cache, so the set may be larger than
    memory. If they would take more than 8 GiB there, they are streamed and augmented by timm's
    transforms. The data set's `notes` name what is not used.

    Args:
        root: The folder of images.
        options: How to load it.

    Raises:
        DataError: If the folder is missing or empty, a class has no images, a class to test on is
            not in train, or an image is bad.
        UserError: If there is a `transform` and the images are not streamed.
    """
    root, size = require_root(root, "of images"), options.size
    if has_shards(root):
        if options.stream is False:
            raise UserError(f"{root}: parquet shards are always streamed; stream must not be False")
        return stream_shards("folder", root, options)
    options.refuse_columns(root)
    tree = read_tree(root, options.skip)
    parts = tree.parts
    decoded_bytes = sum(len(part.paths) for part in parts.values()) * 3 * size**2
    is_large = decoded_bytes > STREAM_ABOVE_BYTES
    if is_large if options.stream is None else options.stream:
        return stream_tree("folder", root, tree, options)
    options.refuse_transform(
        f"{root}: these images are decoded once, and a transform is for streamed ones: ask for"
        " them with stream=True"
    )
    content = [
        [part.classes, part.paths, part.labels.tolist(), part.stamps] for part in parts.values()
    ]
    key = hash_json(["folder 1", str(root.resolve()), size, content])

    def pixels(split: str) -> Iterator[Pixels]:
        paths = parts[split].paths
        starts = range(0, len(paths), IMAGES_PER_TASK)
        tasks = (paths[start : start + IMAGES_PER_TASK] for start in starts)
        return map_ordered(
            lambda task: np.stack([decode_square(root / path, size) for path in task]), tasks
        )

    def undecoded() -> UndecodedSplits:
        labels = {split: part.labels for split, part in parts.items()}
        return UndecodedSplits(parts["train"].classes, (size, size, 3), labels, pixels)

    found = load_or_build("folder", key, undecoded, options.progress)
    return found.to_dataset(
        "folder",
        padding=size // 8,
        flip=True,
        note=tree.note,
        skipped=tuple(sorted(options.skip)),
        notes=tree.notes,
    )
