"""Loads ImageNet-1k (Russakovsky et al., 2015), always streamed.

The images are in one folder per class, or in the parquet shards of the Hugging Face hub.
"""

from pathlib import Path

from cpsam.data.dataset import Dataset
from cpsam.data.load_options import LoadOptions, require_root
from cpsam.data.sets.streamed_datasets import stream_shards, stream_tree
from cpsam.data.storage.image_files import subfolders
from cpsam.data.storage.shard_files import has_shards
from cpsam.data.storage.shard_labels import ADVICE
from cpsam.data.storage.split_names import TRAIN, choose
from cpsam.data.storage.tree import read_tree
from cpsam.errors import DataError, UserError


def load_imagenet(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads ImageNet-1k, or any set in its layouts, without reading its images.

    Args:
        root: The folder with ``train/CLASS/*`` and ``val/CLASS/*``. Or the folder with
            ``train-*.parquet`` and ``validation-*.parquet``, in itself or in ``data/``. Or the
            folder that holds either as ``imagenet/``.
        options: How to load it.

    Raises:
        DataError: If there is no such folder, or files are missing or damaged.
        UserError: If `stream` is False, or timm does not understand the transform.
    """
    if options.stream is False:
        raise UserError("imagenet is always streamed; a folder with stream=False is not")
    folder = find_imagenet(require_root(root, "with ImageNet"))
    try:
        if has_shards(folder):
            return stream_shards("imagenet", folder, options)
        options.refuse_columns(folder)
        tree = read_tree(folder, options.skip)
        if tree.note:
            raise DataError(f"{folder}: no val/ beside train/; {ADVICE}")
        return stream_tree("imagenet", folder, tree, options)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def find_imagenet(root: Path) -> Path:
    """Returns the folder of the data set itself."""
    for folder in (root / "imagenet", root):
        if has_shards(folder) or choose(subfolders(folder), TRAIN):
            return folder
    raise DataError(f"no ImageNet in {root}: {ADVICE}")
