"""A person's own images: a folder a class."""

import os
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.cache import Recipe, load_or_build
from cpsam.data.dataset import Dataset, streamed
from cpsam.data.decode import decode_square
from cpsam.data.digest import hash_plain
from cpsam.data.holdout import stratified
from cpsam.data.parallel import map_ordered
from cpsam.data.source import Files
from cpsam.data.split import Indices, Pixels, Progress
from cpsam.data.transform import Transform
from cpsam.errors import DataError, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
UNREAD_SUFFIXES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")  # images too: to skip them would be to lose them
TEST_FOLDERS = ("val", "test")
TEST_FRACTION = 0.2
SPLIT_SEED = 0
IMAGES_A_TASK = 16
STREAM_ABOVE_BYTES = 8 << 30  # of decoded images: 57,065 of 224x224

OnFault = Callable[[Path, str], None]  # what is wrong, and why


def refuse(where: Path, reason: str) -> None:
    raise DataError(f"{where}: {reason}")


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


def load_folder(
    root: Path,
    image_size: int = 224,
    progress: Progress | None = None,
    *,
    stream: bool | None = None,
    transform: Transform | None = None,
    workers: int = 0,
    skip: Set[str] = frozenset(),
) -> Dataset:
    """Load images from ``root/train/CLASS/*`` and ``root/val/CLASS/*`` (or ``test/``).

    Without these, a stratified fifth of ``root/train/CLASS/*`` or ``root/CLASS/*`` is the test split.

    Images are turned upright, the shorter side resized to `image_size`, and the square in the centre kept, as bytes in a memory-mapped file
    of the cache, so that the set may be larger than memory. Where they would take more than 8 GiB there, the files are read while they are
    needed instead, and augmented by timm's transforms. Hidden files, and files that are not images, are passed over.

    Args:
        root: The folder of images.
        image_size: Height and width of the images that come out.
        progress: Told how many images have been decoded.
        stream: Whether to read files while they are needed; None decides by their number.
        transform: Of streamed images.
        workers: Processes that read streamed images.
        skip: Images to leave out, relative to `root`.

    Raises:
        DataError: If the folder is missing or empty, a class has no images, a class to test on is not in train, or an image is bad.
        UserError: If `image_size` is below 1, or there is a `transform` and the images are not streamed.
    """
    if image_size < 1:
        raise UserError(f"image_size must be at least 1, not {image_size}")
    try:
        parts, note = list_splits(root, skip)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror})") from error
    if stream is None:
        stream = sum(len(part.paths) for part in parts.values()) * 3 * image_size**2 > STREAM_ABOVE_BYTES
    if stream:
        return stream_folder("folder", root, parts, image_size, transform or Transform(), workers, note, skip)
    if transform not in (None, Transform()):
        raise UserError(f"{root}: these images are decoded once, and a transform is for streamed ones: ask for them with --stream True")
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
        skipped=tuple(sorted(skip)),
    )


def stream_folder(
    name: str, root: Path, parts: dict[str, Listing], size: int, transform: Transform, workers: int, note: str, skip: Set[str]
) -> Dataset:
    """The data set of these files, none of which has been read: their names and sizes stand for what is in them."""
    splits = {split: (Files(root, part.paths), part.labels, np.arange(len(part.paths))) for split, part in parts.items()}
    content = [[part.paths, [size for size, _ in part.stamps]] for part in parts.values()]
    return streamed(name, splits, parts["train"].classes, content, size=size, transform=transform, workers=workers, note=note, skip=skip)


def list_splits(root: Path, skip: Set[str] = frozenset(), on_fault: OnFault = refuse) -> tuple[dict[str, Listing], str]:
    """The train and test files of a folder, and a note on how they were told apart.

    Args:
        root: The folder.
        skip: Files to leave out, relative to it; each must be there.
        on_fault: Told of whatever keeps a file or a class from being used; by default it is a DataError.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}; name one with train/CLASS/ and val/CLASS/, or CLASS/, in it with --data-root or CPSAM_DATA")
    divided = bool(subfolders(root / "train"))  # otherwise train/ is a class, of railway pictures, say
    left = set(skip)
    train = list_classes(root, "train" if divided else "", left, on_fault)
    if len(train.classes) < 2:
        raise DataError(f"{root / 'train' if divided else root}: one class folder only, {train.classes[0]!r}; there must be at least two")
    test_folder = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if divided and test_folder is not None:
        test = list_classes(root, test_folder, left, on_fault)
        check_skipped(root, left)
        number = {name: label for label, name in enumerate(train.classes)}
        for name in test.classes:
            if name not in number:
                on_fault(root / test_folder / name, f"class {name!r} is not in {root / 'train'}")
        position = np.array([number.get(name, -1) for name in test.classes])
        test = Listing(train.classes, test.paths, position[test.labels], test.stamps)
        return {"train": train, "test": test.take(np.flatnonzero(test.labels >= 0))}, ""
    check_skipped(root, left)
    try:
        kept, held = stratified(train.labels, max(1, round(TEST_FRACTION * len(train.paths))), SPLIT_SEED)
    except UserError as error:
        raise DataError(f"{root}: too few images to split ({error})") from error
    note = f"no val/ in {root.name}: a stratified fifth of its images, {len(held)} of {len(train.paths)}, is the test split"
    return {"train": train.take(kept), "test": train.take(held)}, note


def check_skipped(root: Path, left: Set[str]) -> None:
    if left:
        raise DataError(f"{root / min(left)}: to be left out, but it is not there; the list is of other data")


def list_classes(root: Path, split: str, skip: set[str], on_fault: OnFault) -> Listing:
    """The images of ``root/split/CLASS/``; those in `skip` are left out, there and here.

    Raises:
        DataError: If there are no classes.
    """
    top = root / split
    classes = subfolders(top)
    if not classes:
        raise DataError(f"{top}: no class folders in it")
    paths: list[str] = []
    labels: list[int] = []
    stamps: list[tuple[int, int]] = []
    for label, name in enumerate(classes):
        files = list_images(top / name, Path(split, name), skip, on_fault)
        if not files:
            on_fault(top / name, f"no images in this class folder ({', '.join(SUFFIXES)})")
        for path, status in files:
            paths.append(path)
            labels.append(label)
            stamps.append((status.st_size, status.st_mtime_ns))
    return Listing(tuple(classes), paths, np.array(labels, np.int64), stamps)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted; none where it is not one."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def list_images(folder: Path, inner: Path, skip: set[str], on_fault: OnFault) -> list[tuple[str, os.stat_result]]:
    """The image files of a folder, by name, each as a path that begins with `inner`. One that cannot be used is a fault."""
    images = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        suffix, path = Path(entry.name).suffix.lower(), f"{inner.as_posix()}/{entry.name}"
        if entry.name.startswith(".") or entry.is_dir() or suffix not in SUFFIXES + UNREAD_SUFFIXES:
            continue
        if path in skip:
            skip.remove(path)
        elif suffix in UNREAD_SUFFIXES:
            on_fault(folder / entry.name, f"{suffix} is not read; convert it to one of {', '.join(SUFFIXES)}, or move it away")
        else:
            try:
                images.append((path, entry.stat()))
            except OSError as error:
                on_fault(folder / entry.name, f"cannot be read ({error.strerror})")
    return images
