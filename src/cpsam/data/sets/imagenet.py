"""ImageNet-1k (Russakovsky et al., 2015), as a folder a class or as the parquet shards of the
Hugging Face hub; always streamed.
"""

from collections.abc import Set
from pathlib import Path

from cpsam.config.transform import Transform
from cpsam.data.dataset import Dataset
from cpsam.data.sets.streamed_datasets import Columns, check_columns, stream_folder, stream_shards
from cpsam.data.split import OnProgress
from cpsam.data.storage.image_files import subfolders
from cpsam.data.storage.shard_files import has_shards
from cpsam.data.storage.shard_labels import ADVICE
from cpsam.data.storage.split_names import TRAIN, choose
from cpsam.data.storage.tree import read_tree
from cpsam.errors import DataError


def load_imagenet(
    root: Path,
    image_size: int = 224,
    progress: OnProgress | None = None,
    *,
    transform: Transform | None = None,
    workers: int = 0,
    skip: Set[str] = frozenset(),
    columns: Columns = (None, None),
) -> Dataset:
    """Loads ImageNet, or any set in its layouts, without reading its images.

    Args:
        root: The folder with ``train/CLASS/*`` and ``val/CLASS/*``, or with ``train-*.parquet`` and
            ``validation-*.parquet``, themselves or in ``data/``; or the folder in which that is
            called ``imagenet/``. Shards are written into the cache as Arrow files.
        image_size: Height and width of the images that come out.
        progress: Told how many shards have been unpacked.
        transform: How images are augmented and cropped.
        workers: Processes that make batches.
        skip: Images to leave out, as :func:`cpsam.data.verify.verify` names them.
        columns: The image and the label column of the shards; None: those that sets of the hub
            have.

    Raises:
        DataError: If there is no such folder, or files are missing or damaged.
        UserError: If timm does not understand the transform.
    """
    folder = find_imagenet(root)
    how = transform or Transform()
    try:
        if not has_shards(folder):
            check_columns(columns, folder)
            tree = read_tree(folder, skip)
            if tree.note:
                raise DataError(f"{folder}: no val/ beside train/; {ADVICE}")
            return stream_folder("imagenet", folder, tree, image_size, how, workers, skip)
        return stream_shards("imagenet", folder, image_size, progress, how, workers, skip, columns)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def find_imagenet(root: Path) -> Path:
    """The folder of the set itself."""
    for folder in (root / "imagenet", root):
        if has_shards(folder) or choose(subfolders(folder), TRAIN):
            return folder
    raise DataError(f"no ImageNet in {root}: {ADVICE}")
