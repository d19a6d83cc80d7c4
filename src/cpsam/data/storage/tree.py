"""Reads a tree of images: the split and the class of each file, and what is not used."""

import unicodedata
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.holdout import stratified
from cpsam.data.storage.class_folders import ANNOTATIONS, EXPECTED, ClassLister, Listing
from cpsam.data.storage.image_files import OnFault, Walk, contents, subfolders
from cpsam.data.storage.split_names import TEST, TRAIN, VALIDATION, choose, split_kind
from cpsam.data.storage.unused_files import plural, shown
from cpsam.errors import DataError, UserError
from cpsam.text import printable

TEST_FRACTION = 0.2
SPLIT_SEED = 0


def refuse(where: Path, reason: str) -> None:
    raise DataError(f"{where}: {reason}")


@dataclass(frozen=True)
class Tree:
    """Holds the files of a tree.

    Args:
        parts: The files of "train" and "test".
        note: How the splits were told apart, or "".
        notes: What a person must know before a run, one line each: `note`, and what is not used.
    """

    parts: dict[str, Listing]
    note: str
    notes: tuple[str, ...]


def read_tree(root: Path, skip: Set[str] = frozenset(), on_fault: OnFault = refuse) -> Tree:
    """Lists the train and test files of a folder.

    Args:
        root: The folder.
        skip: Files to leave out, relative to it; each must exist.
        on_fault: Called for every file or class that cannot be used; by default this is a
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
        self.walk = Walk(root, skip, on_fault)
        left_out = {Path(path).name for path in skip}
        self.lister = ClassLister(root, self.walk, left_out, on_fault)
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
        train = self.lister.list_classes(train_folder)
        if len(train.classes) < 2:
            raise DataError(
                f"{self.root / train_folder}: one class folder only, {train.classes[0]!r}; there"
                " must be at least two"
            )
        self.compare_names(train.classes)
        test = (
            self.match(self.lister.list_test(test_folder), train, train_folder, test_folder)
            if test_folder
            else None
        )
        self.count_the_rest(train_folder, test_folder)
        if self.skip:
            raise DataError(
                f"{self.root / min(self.skip)}: to be left out, but it is not there; the list is of"
                " other data"
            )
        if deeper := self.lister.deeper:
            first = shown([printable(path) for path in deeper[:1]], len(deeper))
            self.notes.append(
                f"{plural(len(deeper), 'image')} in folders inside a class folder, counted to"
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
        """Returns the folder of the train split, or "" if the classes are in the root."""
        names = subfolders(self.root)
        # Without folders in it, it is a class, for example of railways.
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
            raise self.lister.no_classes(kinds[TRAIN])
        for name in names:
            if split_kind(name) in (VALIDATION, TEST) and subfolders(self.root / name):
                raise DataError(
                    f"{self.root}: {name}/ has folders in it, but there is no train/ beside it"
                )
        return ""

    def find_test(self) -> str:
        """Returns the folder to measure on, or "" if there is none."""
        names = subfolders(self.root)
        for group in (VALIDATION, TEST):
            found = choose(names, group)
            if group is TEST:
                # Images without labels are in the folder itself.
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
        """Refuses two classes of the same name; notes names that differ only in case or spaces."""
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

    def match(self, test: Listing, train: Listing, train_folder: str, test_folder: str) -> Listing:
        """Returns the test split with the labels of the train split.

        A class that is not in the train split is a fault.
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
        """Counts the files outside the class folders."""
        walk, used = self.walk, [folder for folder in (train_folder, test_folder) if folder]
        walk.on_fault = lambda where, reason: None  # these files are not used
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
