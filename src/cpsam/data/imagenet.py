"""ImageNet-1k (Russakovsky et al., 2015), as a folder a class or as the parquet shards of the Hugging Face hub; always streamed."""

import re
from collections.abc import Set
from pathlib import Path

import numpy as np

from cpsam.data.dataset import Dataset, streamed
from cpsam.data.folder import stream_folder
from cpsam.data.parallel import map_ordered
from cpsam.data.shards import find_shards, unpack
from cpsam.data.source import Rows
from cpsam.data.split import Indices, Progress
from cpsam.data.splits import TRAIN, choose
from cpsam.data.transform import Transform
from cpsam.data.tree import read_tree
from cpsam.data.walk import subfolders
from cpsam.errors import DataError

IMAGE_COLUMN, LABEL_COLUMN = "image", "label"
TEST_SHARDS = ("validation", "val", "test")  # of ImageNet's own test images no labels are public
ADVICE = (
    "name the folder with train/CLASS/ and val/CLASS/ in it, or with the hub's train-*.parquet and validation-*.parquet, "
    "or the one that holds it as imagenet/, with --data-root or CPSAM_DATA"
)


def load_imagenet(
    root: Path,
    image_size: int = 224,
    progress: Progress | None = None,
    *,
    transform: Transform | None = None,
    workers: int = 0,
    skip: Set[str] = frozenset(),
) -> Dataset:
    """Load ImageNet, or any set in its layouts, without reading its images.

    Args:
        root: The folder with ``train/CLASS/*`` and ``val/CLASS/*``, or with ``train-*.parquet`` and ``validation-*.parquet``, themselves
            or in ``data/``; or the folder in which that is called ``imagenet/``. Shards are written into the cache as Arrow files.
        image_size: Height and width of the images that come out.
        progress: Told how many shards have been unpacked.
        transform: How images are augmented and cropped.
        workers: Processes that make batches.
        skip: Images to leave out, as :func:`cpsam.data.verify.verify` names them.

    Raises:
        DataError: If there is no such folder, or files are missing or damaged.
        UserError: If timm does not understand the transform.
    """
    place = find_imagenet(root)
    how = transform or Transform()
    try:
        if not has_shards(place):
            tree = read_tree(place, skip)
            if tree.note:
                raise DataError(f"{place}: no val/ beside train/; {ADVICE}")
            return stream_folder("imagenet", place, tree, image_size, how, workers, skip)
        return stream_shards(find_splits(place), image_size, progress, how, workers, skip)
    except OSError as error:
        raise DataError(f"{error.filename or place}: cannot be read ({error.strerror})") from error


def find_imagenet(root: Path) -> Path:
    """The folder of the set itself."""
    for place in (root / "imagenet", root):
        if has_shards(place) or choose(subfolders(place), TRAIN):
            return place
    raise DataError(f"no ImageNet in {root}: {ADVICE}")


def has_shards(place: Path) -> bool:
    return any(any(folder.glob("*.parquet")) for folder in (place, place / "data"))


def find_splits(place: Path) -> dict[str, list[Path]]:
    """The shards of "train" and "test"."""
    places = (place, place / "data")
    name = next((name for name in TEST_SHARDS if any(any(folder.glob(f"{name}-*.parquet")) for folder in places)), TEST_SHARDS[0])
    return {"train": find_shards(places, "train", ADVICE), "test": find_shards(places, name, ADVICE)}


def stream_shards(
    shards: dict[str, list[Path]], size: int, progress: Progress | None, transform: Transform, workers: int, skip: Set[str]
) -> Dataset:
    classes, labels = read_all_labels(shards)
    paths = [path for split in shards for path in shards[split]]
    tables = {}
    for path, table in zip(paths, map_ordered(lambda path: unpack(path, IMAGE_COLUMN, LABEL_COLUMN), paths), strict=True):
        tables[path] = table
        if progress is not None:
            progress("unpacking shards", len(tables), len(paths))
    splits, left = {}, set(skip)
    for split, files in shards.items():
        source = Rows([tables[path] for path in files], [len(labels[path]) for path in files])
        kept = kept_rows(files, labels, left)
        splits[split] = source, np.concatenate([labels[path] for path in files]), kept
    if left:
        raise DataError(f"{min(left)}: to be left out, but it is not there; the list is of other data")
    content = [[[path.name, path.stat().st_size] for path in files] for files in shards.values()]
    return streamed("imagenet", splits, classes, content, size=size, transform=transform, workers=workers, skip=skip)


def read_all_labels(shards: dict[str, list[Path]]) -> tuple[tuple[str, ...], dict[Path, Indices]]:
    """Names of the classes, and the labels of every shard.

    Raises:
        DataError: If a label is missing or out of range, or the shards name different classes.
    """
    # Here because pyarrow takes half a second to import, and a folder does not need it.
    from cpsam.data.parquet import read_labels

    labels, names, count = {}, set(), None
    for split, files in shards.items():
        for path in files:
            labels[path], given = read_labels(path, IMAGE_COLUMN, LABEL_COLUMN, count)
            names |= {given} if given else set()
        if split == "train":
            count = len(next(iter(names))) if names else 1 + max(int(values.max(initial=-1)) for values in labels.values())
        if not sum(len(labels[path]) for path in files):
            raise DataError(f"{files[0]}: no rows")
    if len(names) > 1:
        raise DataError(f"{files[0].parent}: the files name different classes")
    return names.pop() if names else tuple(map(str, range(count or 0))), labels


def kept_rows(files: list[Path], labels: dict[Path, Indices], skip: set[str]) -> Indices:
    """The rows of a split, counted over its shards, without those in `skip`, which are taken out of it."""
    starts = dict(zip([path.name for path in files], np.cumsum([0, *(len(labels[path]) for path in files)]).tolist(), strict=False))
    kept = np.ones(sum(len(labels[path]) for path in files), np.bool_)
    counts = {path.name: len(labels[path]) for path in files}
    for image in sorted(skip):
        match = re.fullmatch(r"(.+), row (\d+)", image)
        if match and int(match[2]) < counts.get(match[1], 0):
            kept[starts[match[1]] + int(match[2])] = False
            skip.remove(image)
    return np.flatnonzero(kept)
