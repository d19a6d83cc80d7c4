"""A person's own images: a folder a class."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.cache import Recipe, load_or_build
from cpsam.data.dataset import Dataset, Indices, Pixels, Progress
from cpsam.data.decode import decode_square
from cpsam.data.digest import hash_plain
from cpsam.data.holdout import stratified
from cpsam.data.parallel import map_ordered
from cpsam.errors import DataError, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
UNREAD_SUFFIXES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")  # images too: to skip them would be to lose them
TEST_FOLDERS = ("val", "test")
TEST_FRACTION = 0.2
SPLIT_SEED = 0
IMAGES_A_TASK = 16


@dataclass(frozen=True)
class Listing:
    """The image files of a split, class by class, each class by name.

    Args:
        classes: Names of the class folders, sorted.
        paths: Relative to the root.
        labels: (N,).
        stamps: Size in bytes and time of change of each file, in nanoseconds, which stand for its content.
    """

    classes: tuple[str, ...]
    paths: list[str]
    labels: Indices
    stamps: list[tuple[int, int]]

    def take(self, samples: Indices) -> "Listing":
        chosen = samples.tolist()
        return Listing(self.classes, [self.paths[i] for i in chosen], self.labels[samples], [self.stamps[i] for i in chosen])


def load_folder(root: Path, image_size: int = 224, progress: Progress | None = None) -> Dataset:
    """Load images from ``root/train/CLASS/*`` and ``root/val/CLASS/*`` (or ``test/``).

    Without these, a stratified fifth of ``root/train/CLASS/*`` or ``root/CLASS/*`` is the test split.

    Images are turned upright, the shorter side resized to `image_size`, and the square in the centre kept, as bytes in a memory-mapped file
    of the cache, so that the set may be larger than memory. Hidden files, and files that are not images, are passed over.

    Args:
        root: The folder of images.
        image_size: Height and width of the images that come out.
        progress: Told how many images have been decoded.

    Raises:
        DataError: If the folder is missing or empty, a class has no images, a class to test on is not in train, or an image is bad.
        UserError: If `image_size` is below 1.
    """
    if image_size < 1:
        raise UserError(f"image_size must be at least 1, not {image_size}")
    try:
        parts, note = list_splits(root)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror})") from error
    content = [[part.classes, part.paths, part.labels.tolist(), part.stamps] for part in parts.values()]
    key = hash_plain(["folder 1", str(root.resolve()), image_size, content])

    def pixels(split: str) -> Iterator[Pixels]:
        paths = parts[split].paths
        tasks = [paths[start : start + IMAGES_A_TASK] for start in range(0, len(paths), IMAGES_A_TASK)]
        return map_ordered(lambda task: np.stack([decode_square(root / path, image_size) for path in task]), tasks)

    def recipe() -> Recipe:
        labels = {split: part.labels for split, part in parts.items()}
        return Recipe(parts["train"].classes, (image_size, image_size, 3), labels, pixels)

    found = load_or_build("folder", key, recipe, progress)
    return Dataset(
        "folder",
        found.train,
        found.test,
        found.classes,
        found.mean,
        found.std,
        padding=image_size // 8,
        flip=True,
        fingerprint=found.fingerprint,
        note=note,
    )


def list_splits(root: Path) -> tuple[dict[str, Listing], str]:
    """The train and test files of a folder, and a note on how they were told apart."""
    if not root.is_dir():
        raise DataError(f"no folder {root}; name one with train/CLASS/ and val/CLASS/, or CLASS/, in it with --data-root or CPSAM_DATA")
    divided = bool(subfolders(root / "train"))  # otherwise train/ is a class, of railway pictures, say
    train = list_classes(root, "train" if divided else "")
    if len(train.classes) < 2:
        raise DataError(f"{root / 'train' if divided else root}: one class folder only, {train.classes[0]!r}; there must be at least two")
    test_folder = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if divided and test_folder is not None:
        test = list_classes(root, test_folder)
        strangers = sorted(set(test.classes) - set(train.classes))
        if strangers:
            raise DataError(f"{root / test_folder / strangers[0]}: class {strangers[0]!r} is not in {root / 'train'}")
        position = np.array([train.classes.index(name) for name in test.classes])
        return {"train": train, "test": Listing(train.classes, test.paths, position[test.labels], test.stamps)}, ""
    try:
        kept, held = stratified(train.labels, max(1, round(TEST_FRACTION * len(train.paths))), SPLIT_SEED)
    except UserError as error:
        raise DataError(f"{root}: too few images to split ({error})") from error
    note = f"no val/ in {root.name}: a stratified fifth of its images, {len(held)} of {len(train.paths)}, is the test split"
    return {"train": train.take(kept), "test": train.take(held)}, note


def list_classes(root: Path, split: str) -> Listing:
    """The images of ``root/split/CLASS/``.

    Raises:
        DataError: If there are no classes, or one of them has no images.
    """
    top = root / split
    classes = subfolders(top)
    if not classes:
        raise DataError(f"{top}: no class folders in it")
    paths: list[str] = []
    labels: list[int] = []
    stamps: list[tuple[int, int]] = []
    for label, name in enumerate(classes):
        files = list_images(top / name)
        if not files:
            raise DataError(f"{top / name}: no images in this class folder ({', '.join(SUFFIXES)})")
        for file in files:
            status = file.stat()
            paths.append(Path(split, name, file.name).as_posix())
            labels.append(label)
            stamps.append((status.st_size, status.st_mtime_ns))
    return Listing(tuple(classes), paths, np.array(labels), stamps)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted; none where it is not one."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def list_images(folder: Path) -> list[os.DirEntry[str]]:
    """The image files of a folder, by name.

    Raises:
        DataError: If there is one of a kind that cannot be read.
    """
    images = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        suffix = Path(entry.name).suffix.lower()
        if entry.name.startswith(".") or entry.is_dir():
            continue
        if suffix in UNREAD_SUFFIXES:
            raise DataError(f"{entry.path}: {suffix} is not read; convert it to one of {', '.join(SUFFIXES)}, or move it away")
        if suffix in SUFFIXES:
            images.append(entry)
    return images
