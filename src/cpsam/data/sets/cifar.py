"""Loads CIFAR-10 and CIFAR-100 from the hub's parquet files or the original pickles.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.dataset import Dataset
from cpsam.data.load_options import LoadOptions
from cpsam.data.split import OnProgress, Pixels
from cpsam.data.storage.cifar_pickles import find_pickled, pickled_paths, read_names, read_split
from cpsam.data.storage.decoded_cache import SPLITS, UndecodedSplits, load_or_build
from cpsam.data.storage.hub import HubFile, fetch
from cpsam.data.storage.shard_files import find_shards, parquet_files
from cpsam.errors import DataError
from cpsam.files import hash_file, hash_json

SIZE = (32, 32)
IMAGE_COLUMN = "img"


@dataclass(frozen=True)
class HubDataset:
    """Describes a CIFAR on the hub: its repository, the folder of its files, its columns."""

    repository: str
    revision: str
    folder: str
    label_column: str
    num_classes: int
    sha256: dict[str, str]

    def hub_file(self, split: str) -> HubFile:
        return HubFile(
            self.repository,
            self.revision,
            f"{self.folder}/{split}-00000-of-00001.parquet",
            self.sha256[split],
        )


HUB_DATASETS = {
    "cifar10": HubDataset(
        repository="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        folder="plain_text",
        label_column="label",
        num_classes=10,
        sha256={
            "train": "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
            "test": "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
        },
    ),
    "cifar100": HubDataset(
        repository="uoft-cs/cifar100",
        revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        folder="cifar100",
        label_column="fine_label",
        num_classes=100,
        sha256={
            "train": "694865d6b990e234804f01268586c41e88bcbbb75e20858432c05ad4081aca23",
            "test": "98776c529bb146a9c791229df74a5cf076be9b43d82dbbd334b6a7788d73dc68",
        },
    ),
}


def load_cifar10(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads CIFAR-10: 60,000 images of 32x32 in 10 classes."""
    return load_cifar("cifar10", root, options)


def load_cifar100(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads CIFAR-100: 60,000 images of 32x32 in 100 classes."""
    return load_cifar("cifar100", root, options)


def load_cifar(name: str, root: Path | None, options: LoadOptions) -> Dataset:
    """Loads a CIFAR.

    Args:
        name: ``"cifar10"`` or ``"cifar100"``.
        root: The folder of data sets. The files are ``train-*.parquet`` and ``test-*.parquet`` in
            ``root/name``, or in the folder in it that the hub has them in. Or they are the original
            pickles in ``root/cifar-100-python``. None fetches parquet files from the hub.
        options: Only `progress` is used: it is told how many images have been decoded.

    Raises:
        UserError: If an option is given that is of no use here.
        DataError: If files are missing or damaged, or the hub cannot be reached.
    """
    options.refuse_all(name)
    progress = options.progress
    hub = HUB_DATASETS[name]
    pickled = (
        None if root is None or has_parquet(root / name, hub.folder) else find_pickled(name, root)
    )
    if pickled is not None:
        return load_pickled(name, pickled, hub.num_classes, progress)
    files = fetch_files(name, hub) if root is None else find_files(root / name, hub.folder)
    with ThreadPoolExecutor() as pool:
        hashes = {split: list(pool.map(hash_file, paths)) for split, paths in files.items()}
    # Everything that changes the pixels or labels from the same bytes belongs into the key.
    key = hash_json(["cifar 1", SIZE, IMAGE_COLUMN, hub.label_column, hub.num_classes, hashes])
    found = load_or_build(name, key, lambda: undecoded_parquet(files, hub), progress)
    return found.to_dataset(name, padding=4, flip=True)


def load_pickled(name: str, folder: Path, num_classes: int, progress: OnProgress | None) -> Dataset:
    """Loads the original files, as torchvision unpacks them.

    Pixels, labels and names are those of the parquet files.
    """
    paths = pickled_paths(name, folder)
    key = hash_json(
        [
            "cifar pickled 1",
            num_classes,
            {split: [hash_file(path) for path in files] for split, files in paths.items()},
        ]
    )

    def undecoded() -> UndecodedSplits:
        parts = {split: read_split(name, paths[split], num_classes) for split in SPLITS}
        labels = {split: labels for split, (_, labels) in parts.items()}
        return UndecodedSplits(
            read_names(name, folder, num_classes),
            (*SIZE, 3),
            labels,
            lambda split: iter([parts[split][0]]),
        )

    found = load_or_build(name, key, undecoded, progress)
    return found.to_dataset(name, padding=4, flip=True)


def has_parquet(folder: Path, inner: str) -> bool:
    return any(parquet_files(path) for path in (folder, folder / inner))


def fetch_files(name: str, hub: HubDataset) -> dict[str, list[Path]]:
    advice = (
        f"where there is no internet, copy {hub.folder}/ of the hub's data set"
        f" {hub.repository} to FOLDER/{name} and name FOLDER with `root` or CPSAM_DATA"
    )
    return {split: [fetch(hub.hub_file(split), advice)] for split in SPLITS}


def find_files(folder: Path, inner: str) -> dict[str, list[Path]]:
    advice = (
        f"name the folder that holds {folder.name}/ with `root` or CPSAM_DATA, "
        "or neither, to fetch the files from the Hugging Face hub"
    )
    return {split: find_shards([folder, folder / inner], split, advice) for split in SPLITS}


def undecoded_parquet(files: dict[str, list[Path]], hub: HubDataset) -> UndecodedSplits:
    # Imported here because pyarrow takes half a second, and a warm start does not need it.
    from cpsam.data.storage.parquet import read_labels, read_pixels

    labels, names = {}, set()
    for split, paths in files.items():
        tables = [
            read_labels(path, IMAGE_COLUMN, hub.label_column, hub.num_classes) for path in paths
        ]
        labels[split] = np.concatenate([values for values, _ in tables])
        if not len(labels[split]):
            raise DataError(f"{paths[0]}: no rows")
        names |= {given for _, given in tables if given is not None}
    if len(names) > 1:
        raise DataError(f"{files['train'][0].parent}: the files name different classes")
    classes = names.pop() if names else tuple(map(str, range(hub.num_classes)))

    def pixels(split: str) -> Iterator[Pixels]:
        for path in files[split]:
            yield from read_pixels(path, IMAGE_COLUMN, hub.label_column, SIZE)

    return UndecodedSplits(classes, (*SIZE, 3), labels, pixels)
