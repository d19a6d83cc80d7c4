"""A person's own images: a folder a class."""

from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np

from cpsam.config.transform import Transform
from cpsam.data.dataset import Dataset
from cpsam.data.decode import decode_square
from cpsam.data.parallel import map_ordered
from cpsam.data.sets.streamed_datasets import Columns, check_columns, stream_folder, stream_shards
from cpsam.data.split import OnProgress, Pixels
from cpsam.data.storage.decoded_cache import UndecodedSplits, load_or_build
from cpsam.data.storage.shard_files import has_shards
from cpsam.data.storage.tree import read_tree
from cpsam.errors import UserError
from cpsam.files import hash_json

IMAGES_A_TASK = 16
STREAM_ABOVE_BYTES = 8 << 30  # of decoded images: 57,065 of 224x224


def load_folder(
    root: Path,
    image_size: int = 224,
    progress: OnProgress | None = None,
    *,
    stream: bool | None = None,
    transform: Transform | None = None,
    workers: int = 0,
    skip: Set[str] = frozenset(),
    columns: Columns = (None, None),
) -> Dataset:
    """Loads images from ``root/train/CLASS/`` and ``root/val/CLASS/``, as
    :func:`cpsam.data.storage.tree.read_tree` finds them.

    Parquet shards are read by :func:`cpsam.data.storage.shard_labels.read_shards` instead, and
    streamed. Without a split to measure on, a stratified fifth of ``root/train/CLASS/`` or
    ``root/CLASS/`` is the test split.

    Images are turned upright, the shorter side resized to `image_size`, and the square in the
    centre kept, as bytes in a memory-mapped file of the cache, so that the set may be larger than
    memory. Where they would take more than 8 GiB there, the files are read while they are needed
    instead, and augmented by timm's transforms. What is not used is named in the data set's
    `notes`.

    Args:
        root: The folder of images.
        image_size: Height and width of the images that come out.
        progress: Told how many images have been decoded.
        stream: Whether to read files while they are needed; None decides by their number.
        transform: Of streamed images.
        workers: Processes that read streamed images.
        skip: Images to leave out, relative to `root`; of parquet shards, as
            :func:`cpsam.data.storage.shard_labels.row_name` calls them.
        columns: The image and the label column of parquet shards.

    Raises:
        DataError: If the folder is missing or empty, a class has no images, a class to test on is
            not in train, or an image is bad.
        UserError: If `image_size` is below 1, or there is a `transform` and the images are not
            streamed.
    """
    if image_size < 1:
        raise UserError(f"image_size must be at least 1, not {image_size}")
    if has_shards(root):
        if stream is False:
            raise UserError(f"{root}: parquet shards are always streamed; stream must not be False")
        return stream_shards(
            "folder", root, image_size, progress, transform or Transform(), workers, skip, columns
        )
    check_columns(columns, root)
    tree = read_tree(root, skip)
    parts = tree.parts
    if stream is None:
        stream = (
            sum(len(part.paths) for part in parts.values()) * 3 * image_size**2 > STREAM_ABOVE_BYTES
        )
    if stream:
        return stream_folder(
            "folder", root, tree, image_size, transform or Transform(), workers, skip
        )
    if transform not in (None, Transform()):
        raise UserError(
            f"{root}: these images are decoded once, and a transform is for streamed ones: ask for"
            " them with stream=True"
        )
    content = [
        [part.classes, part.paths, part.labels.tolist(), part.stamps] for part in parts.values()
    ]
    key = hash_json(["folder 1", str(root.resolve()), image_size, content])

    def pixels(split: str) -> Iterator[Pixels]:
        paths = parts[split].paths
        tasks = [
            paths[start : start + IMAGES_A_TASK] for start in range(0, len(paths), IMAGES_A_TASK)
        ]
        return map_ordered(
            lambda task: np.stack([decode_square(root / path, image_size) for path in task]), tasks
        )

    def undecoded() -> UndecodedSplits:
        labels = {split: part.labels for split, part in parts.items()}
        return UndecodedSplits(parts["train"].classes, (image_size, image_size, 3), labels, pixels)

    found = load_or_build("folder", key, undecoded, progress)
    return found.to_dataset(
        "folder",
        padding=image_size // 8,
        flip=True,
        note=tree.note,
        skipped=tuple(sorted(skip)),
        notes=tree.notes,
    )
