"""Reads a tree of images: which split and which class each file belongs to, and what is not
used.
"""

import unicodedata
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.holdout import stratified
from cpsam.data.sets.split_names import TEST, TRAIN, VALIDATION, choose, split_kind
from cpsam.data.sets.unused import plural, shown
from cpsam.data.sets.walk import Found, OnFault, Walk, contents, subfolders
from cpsam.data.split import Indices
from cpsam.errors import DataError, UserError
from cpsam.files import read_file
from cpsam.text import printable

TEST_FRACTION = 0.2
SPLIT_SEED = 0
# tiny-imagenet's: a line per image, its name and its class first, between tabs
ANNOTATIONS = "val_annotations.txt"
ANNOTATIONS_BYTES = 1 << 28
EXPECTED = "images must be in a folder per class, as in train/CLASS/ and val/CLASS/, or CLASS/"
# beside one of the next, no class but the images of another task
IMAGES = ("images", "image", "imgs", "img", "jpegimages")
TARGETS = ("labels", "label", "annotations", "masks", "mask", "segmentationclass")


def refuse(where: Path, reason: str) -> None:
    raise DataError(f"{where}: {reason}")


@dataclass(frozen=True)
class Listing:
    """The image files of a split, class by class, each class by name.

    Args:
        classes: Names of the class folders, sorted.
        paths: Relative to the root.
        labels: (N,).
        stamps: Size in bytes and time of change of each file, in nanoseconds, which stand for its
            content.
    """

    classes: tuple[str, ...]
    paths: list[str]
    labels: Indices
    stamps: list[tuple[int, int]]

    def take(self, samples: Indices) -> "Listing":
        chosen = samples.tolist()
        return Listing(
            self.classes,
            [self.paths[i] for i in chosen],
            self.labels[samples],
            [self.stamps[i] for i in chosen],
        )


@dataclass(frozen=True)
class Tree:
    """What a tree holds.

    Args:
        parts: The files of "train" and "test".
        note: How the splits were told apart, or "".
        notes: What a person must know before a run, a line each: `note`, and what is not used.
    """

    parts: dict[str, Listing]
    note: str
    notes: tuple[str, ...]


def read_tree(root: Path, skip: Set[str] = frozenset(), on_fault: OnFault = refuse) -> Tree:
    """Lists the train and test files of a folder.

    Args:
        root: The folder.
        skip: Files to leave out, relative to it; each must be there.
        on_fault: Told of whatever keeps a file or a class from being used; by default it is a
            DataError.

    Raises:
        DataError: If there is no such folder, or no two classes in it, or if it can be understood
            in two ways.
    """
    try:
        return Reader(root, set(skip), on_fault).read()
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror})") from error


class Reader:
    """Reads one tree."""

    def __init__(self, root: Path, skip: set[str], on_fault: OnFault) -> None:
        self.root, self.skip, self.on_fault = root, skip, on_fault
        self.left_out = {Path(path).name for path in skip}
        self.walk = Walk(root, skip, on_fault)
        self.deeper: list[str] = []
        self.notes: list[str] = []

    def read(self) -> Tree:
        if not self.root.is_dir():
            advice = (
                "name one with train/CLASS/ and val/CLASS/, or CLASS/, in it with `root` or"
                " CPSAM_DATA"
            )
            name = printable(str(self.root))
            raise DataError(
                f"{name}: not a folder; {advice}"
                if self.root.exists()
                else f"no folder {name}; {advice}"
            )
        train_folder = self.find_train()
        test_folder = self.find_test() if train_folder else ""
        train = self.list_classes(train_folder)
        if len(train.classes) < 2:
            raise DataError(
                f"{self.root / train_folder}: one class folder only, {train.classes[0]!r}; there"
                " must be at least two"
            )
        self.compare_names(train.classes)
        test = (
            self.match(self.list_test(test_folder), train, train_folder, test_folder)
            if test_folder
            else None
        )
        self.count_the_rest(train_folder, test_folder)
        if self.skip:
            raise DataError(
                f"{self.root / min(self.skip)}: to be left out, but it is not there; the list is of"
                " other data"
            )
        if self.deeper:
            first = shown([printable(path) for path in self.deeper[:1]], len(self.deeper))
            self.notes.append(
                f"{plural(len(self.deeper), 'image')} in folders inside a class folder, counted to"
                f" that class: {first}"
            )
        notes = (*self.notes, *self.walk.unused.lines())
        if test is not None:
            return Tree({"train": train, "test": test}, "", notes)
        if not train.paths:
            first = self.root / train_folder / train.classes[0]
            raise DataError(
                f"{self.root / train_folder}: no images in any class folder; {first.name} has"
                f" {contents(first)}; {EXPECTED}"
            )
        try:
            kept, held = stratified(
                train.labels, max(1, round(TEST_FRACTION * len(train.paths))), SPLIT_SEED
            )
        except UserError as error:
            raise DataError(f"{self.root}: too few images to split ({error})") from error
        fifth = (
            f"a stratified fifth of its images, {len(held)} of {len(train.paths)}, is the test"
            " split"
        )
        note = f"no val/ in {printable(self.root.name)}: {fifth}"
        return Tree({"train": train.take(kept), "test": train.take(held)}, note, (note, *notes))

    def find_train(self) -> str:
        """Returns the folder of the train split, or "" where the classes lie in the root."""
        names = subfolders(self.root)
        # otherwise a class, of railway pictures, say
        found = [name for name in choose(names, TRAIN) if subfolders(self.root / name)]
        if len(found) > 1:
            raise DataError(
                f"{self.root}: both {found[0]}/ and {found[1]}/ may be the train split; rename one"
                " or move it away"
            )
        if found:
            return found[0]
        kinds = {split_kind(name): name for name in names}
        if TRAIN in kinds and (VALIDATION in kinds or TEST in kinds):
            raise self.no_classes(kinds[TRAIN])
        for name in names:
            if split_kind(name) in (VALIDATION, TEST) and subfolders(self.root / name):
                raise DataError(
                    f"{self.root}: {name}/ has folders in it, but there is no train/ beside it"
                )
        return ""

    def find_test(self) -> str:
        """Returns the folder to measure on, or "" where there is none."""
        names = subfolders(self.root)
        for group in (VALIDATION, TEST):
            found = choose(names, group)
            if group is TEST:
                # images without labels lie in the folder itself
                found = [name for name in found if subfolders(self.root / name)]
            if len(found) > 1:
                raise DataError(
                    f"{self.root}: both {found[0]}/ and {found[1]}/ may be measured on; rename one"
                    " or move it away"
                )
            if found:
                return found[0]
        return ""

    def compare_names(self, classes: tuple[str, ...]) -> None:
        """Refuses two classes that are one name, and notes those that differ in case or spaces
        alone.
        """
        alike: dict[str, str] = {}
        for name in classes:
            other = alike.setdefault(same_name(name), name)
            if other != name:
                raise DataError(
                    f"{self.root}: the class folders {other!a} and {name!a} are the same name in"
                    " Unicode; merge them"
                )
        folded: dict[str, str] = {}
        for name in classes:
            other = folded.setdefault(name.strip().casefold(), name)
            if other != name:
                self.notes.append(f"classes {other!r} and {name!r} differ in case or spaces alone")

    def list_classes(self, folder: str) -> Listing:
        """Lists the images of ``root/folder/CLASS/``."""
        names = subfolders(self.root / folder)
        self.refuse_other_tasks(folder, names)
        classes, paths, labels, stamps = [], [], [], []
        for name in names:
            inner = f"{folder}/{name}" if folder else name
            files = list(self.walk.images(inner))
            if not files and any(
                path == inner or path.startswith(f"{inner}/") for path in self.walk.own
            ):
                continue
            deeper = [path for path, _ in files if path.count("/") > inner.count("/") + 1]
            inside = (
                {path.removeprefix(f"{inner}/").partition("/")[0] for path in deeper}
                if files
                else subfolders(self.root / inner)
            )
            if choose(inside, TRAIN) and choose(inside, VALIDATION + TEST):
                raise DataError(
                    f"{self.root / inner}: holds splits; name it as the folder of the data set, or"
                    " move it away"
                )
            self.deeper += deeper
            if not files:
                self.on_fault(
                    self.root / inner,
                    f"no images in this class folder; it has {contents(self.root / inner)}",
                )
            paths += [path for path, _ in files]
            labels += [len(classes)] * len(files)
            stamps += [(status.st_size, status.st_mtime_ns) for _, status in files]
            classes.append(name)
        if not classes:
            raise self.no_classes(folder)
        return Listing(tuple(classes), paths, np.array(labels, np.int64), stamps)

    def no_classes(self, folder: str) -> DataError:
        where = self.root / folder
        return DataError(f"{where}: no class folders in it; it has {contents(where)}; {EXPECTED}")

    def refuse_other_tasks(self, folder: str, names: list[str]) -> None:
        """Refuses the layouts of detection and segmentation, whose folders are no classes."""
        images, targets = (
            [name for name in names if name.lower() in words] for words in (IMAGES, TARGETS)
        )
        if images and targets:
            what = f"{images[0]}/ and {targets[0]}/ are the layout of detection or segmentation"
            raise DataError(f"{self.root / folder}: {what}; {EXPECTED}")

    def list_test(self, folder: str) -> Listing:
        annotations = self.root / folder / ANNOTATIONS
        if not annotations.is_file():
            return self.list_classes(folder)
        self.walk.known.add(f"{folder}/{ANNOTATIONS}")
        return self.list_annotated(folder, annotations)

    def list_annotated(self, folder: str, annotations: Path) -> Listing:
        """Lists images whose classes are in a file, as tiny-imagenet has them."""
        try:
            rows = [
                line.split("\t")
                for line in read_file(annotations, ANNOTATIONS_BYTES).decode().splitlines()
                if line
            ]
            class_of = {row[0]: row[1] for row in rows}
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{annotations}: not lines of an image and its class, between tabs, in UTF-8"
            ) from error
        if len(class_of) < len(rows):
            raise DataError(f"{annotations}: names an image twice")
        files: list[tuple[str, Found]] = []
        for found in self.walk.images(folder):
            name = Path(found[0]).name
            if name in class_of:
                files.append((class_of.pop(name), found))
            else:
                self.on_fault(
                    self.root / found[0], f"no line in {ANNOTATIONS}, or it is there twice"
                )
        for name in sorted(class_of.keys() - self.left_out):
            self.on_fault(annotations, f"names {name!r}, which is not there")
        classes = tuple(sorted({name for name, _ in files}))
        number = {name: label for label, name in enumerate(classes)}
        files.sort(key=lambda item: (item[0], item[1][0]))
        stamps = [(status.st_size, status.st_mtime_ns) for _, (_, status) in files]
        return Listing(
            classes,
            [path for _, (path, _) in files],
            np.array([number[name] for name, _ in files], np.int64),
            stamps,
        )

    def match(self, test: Listing, train: Listing, train_folder: str, test_folder: str) -> Listing:
        """Returns the test split with the labels of the train split; a class that is not trained on
        is a fault.
        """
        number = {same_name(name): label for label, name in enumerate(train.classes)}
        for name in test.classes:
            if same_name(name) not in number:
                near = [other for other in train.classes if other.casefold() == name.casefold()]
                hint = f", which has {near[0]!r}" if near else ""
                self.on_fault(
                    self.root / test_folder / name,
                    f"class {name!r} is not in {self.root / train_folder}{hint}",
                )
        position = np.array([number.get(same_name(name), -1) for name in test.classes], np.int64)
        labels = position[test.labels]
        used = Listing(train.classes, test.paths, labels, test.stamps).take(
            np.flatnonzero(labels >= 0)
        )
        present = set(used.labels.tolist())
        missing = [
            printable(name) for label, name in enumerate(train.classes) if label not in present
        ]
        if missing:
            count = f"{len(missing):,} of {len(train.classes):,} classes have"
            self.notes.append(
                f"{count} no images in {test_folder}/ to measure on:"
                f" {shown(missing[:3], len(missing))}"
            )
        return used

    def count_the_rest(self, train_folder: str, test_folder: str) -> None:
        """Counts what lies outside the class folders."""
        walk, used = self.walk, [folder for folder in (train_folder, test_folder) if folder]
        walk.on_fault = lambda where, reason: None  # what is not used does no harm
        for folder in ("", *used):
            if f"{folder}/{ANNOTATIONS}" in walk.known:
                continue
            for path, _ in walk.images(folder, deep=False):
                walk.unused.add("images outside any class folder", path)
        others = (
            [name for name in subfolders(self.root) if name not in used] if train_folder else []
        )
        for folder in others:
            reason = f"images in {printable(folder)}/"
            for path, _ in walk.images(folder):
                walk.unused.add(reason, path)


def same_name(name: str) -> str:
    """Returns the composed form of a name: macOS decomposes letters with accents."""
    return unicodedata.normalize("NFC", name)
