"""Reads the labels of parquet shards: the class of each row, for training and verification."""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpsam.data.split import Indices
from cpsam.data.storage.shard_files import OnShardFault, split_of, split_shards
from cpsam.data.storage.unused_files import SHOWN, plural, shown
from cpsam.errors import DataError
from cpsam.text import printable

if TYPE_CHECKING:
    from cpsam.data.storage.parquet import LabelColumn

ADVICE = (
    "name the folder with train/CLASS/ and val/CLASS/ in it, or with the hub's train-*.parquet and"
    " validation-*.parquet, or the one that holds it as imagenet/, with `root` or CPSAM_DATA"
)
NONE = -1  # the class of a row without a label


@dataclass(frozen=True)
class Shards:
    """Holds the labels of a data set of parquet files.

    Args:
        columns: The names of the image and of the label column.
        files: The shards of "train" and "test".
        classes: Names.
        labels: The class of every row of a file, (N,); -1 for a row that has none or is left out. A
            file that cannot be read is missing.
        notes: What a person must know before a run, one line each.
    """

    columns: tuple[str, str]
    files: dict[str, list[Path]]
    classes: tuple[str, ...]
    labels: dict[Path, Indices]
    notes: tuple[str, ...]

    def joined(self, split: str) -> Indices:
        """Returns the class of every row of a split, over its files."""
        return np.concatenate(
            [
                np.zeros(0, np.int64),
                *(self.labels[path] for path in self.files[split] if path in self.labels),
            ]
        )


def row_name(path: Path, row: int) -> str:
    """Returns the name of a row in a list of images to leave out."""
    return f"{file_name(path)}, row {row}"


def file_name(path: Path) -> str:
    return path.name if split_of(path) else f"{path.parent.name}/{path.name}"


def refuse(path: Path, row: int | None, reason: str) -> None:
    raise DataError(f"{path}: {reason}" if row is None else f"{path}, row {row}: {reason}")


def read_shards(
    root: Path,
    image_column: str | None = None,
    label_column: str | None = None,
    skip: Set[str] = frozenset(),
    on_fault: OnShardFault = refuse,
) -> Shards:
    """Reads the labels of a folder of parquet shards.

    If the metadata of a file names the numbers, they are the classes. Without names, the classes
    are the different labels of the train split, numbers or texts, in their order.

    Args:
        root: The folder.
        image_column: Struct column with the field ``bytes``; None: the one with a usual name.
        label_column: Column of whole numbers or texts; None: likewise.
        skip: Rows to leave out, named by :func:`row_name`; each must exist.
        on_fault: Called for every row or file that cannot be used; by default this is a DataError.

    Raises:
        DataError: If there are no shards, no two classes, or no such columns.
    """
    # Imported here because pyarrow takes half a second, and a tree does not need it.
    from cpsam.data.storage.parquet import choose_columns, label_column_of, other_columns

    files, unused = split_shards(root, ADVICE, on_fault)
    columns = choose_columns(files["train"], image_column, label_column)
    found: dict[Path, LabelColumn] = {}
    for path in [path for paths in files.values() for path in paths]:
        try:
            found[path] = label_column_of(path, *columns)
        except DataError as error:
            on_fault(path, None, str(error).removeprefix(f"{path}: "))
    left_out = rows_left_out(found, skip)
    for path, column in found.items():
        for row in sorted({*np.flatnonzero(column.missing).tolist()} - left_out[path]):
            on_fault(path, row, "no label")
        column.missing[list(left_out[path])] = True
    trained = [found[path] for path in files["train"] if path in found]
    names = names_of(found, on_fault)
    values, notes = (
        ([*range(len(names))], []) if names is not None else values_of(trained, columns[1])
    )
    if not values and all(path in found for path in files["train"]):
        raise DataError(f"{files['train'][0]}: no rows with a label to train on")
    # Otherwise an unknown label may be one of a file that cannot be read.
    complete = names is not None or len(trained) == len(files["train"])
    number = {value: label for label, value in enumerate(values)}
    labels = {}
    for path, column in found.items():
        labels[path] = np.array(
            [number.get(value, NONE) for value in column.values.tolist()], np.int64
        )
        labels[path][column.missing] = NONE
        unknown = (
            np.flatnonzero((labels[path] == NONE) & ~column.missing)
            if complete
            else np.zeros(0, np.int64)
        )
        for row in unknown.tolist():
            on_fault(
                path,
                row,
                reason_of(
                    column.values[row : row + 1].tolist()[0],
                    len(names) if names is not None else None,
                ),
            )
    shards = Shards(columns, files, names or tuple(map(str, values)), labels, ())
    notes += check_classes(root, shards, on_fault)
    others = other_columns(files["train"], columns)
    if others:
        first = shown([printable(name) for name in others[:SHOWN]], len(others))
        notes.append(
            f"not used: {plural(len(others), 'column')} beside {columns[0]!r} and {columns[1]!r}:"
            f" {first}"
        )
    return Shards(columns, files, shards.classes, labels, (*notes, *unused.lines()))


def rows_left_out(found: "Mapping[Path, LabelColumn]", skip: Set[str]) -> dict[Path, set[int]]:
    """Returns the rows of each file to leave out."""
    rows: dict[Path, set[int]] = {path: set() for path in found}
    by_name = {file_name(path): path for path in rows}
    for image in sorted(skip):
        match = re.fullmatch(r"(.+), row (\d{1,15})", image, re.DOTALL)
        if (
            match is None
            or match[1] not in by_name
            or int(match[2]) >= len(found[by_name[match[1]]].missing)
        ):
            raise DataError(
                f"{image}: to be left out, but it is not there; the list is of other data"
            )
        rows[by_name[match[1]]].add(int(match[2]))
    return rows


def names_of(found: "Mapping[Path, LabelColumn]", on_fault: OnShardFault) -> tuple[str, ...] | None:
    """Returns the names that the files give the classes, or None if none gives any."""
    names = None
    for path, column in found.items():
        if column.names is None:
            continue
        if names is not None and column.names != names:
            on_fault(path, None, "its metadata names other classes than the first shard's")
        twice = [name for index, name in enumerate(column.names) if name in column.names[:index]]
        if twice:
            raise DataError(f"{path}: its metadata names class {twice[0]!r} twice")
        names = names or column.names
    return names


def values_of(trained: "list[LabelColumn]", label_column: str) -> tuple[list[Any], list[str]]:
    """Returns the different labels of the train split, in order.

    Returns also a note if they are not 0, 1, 2 and so on.

    Raises:
        DataError: If the labels of one file are numbers and of another are texts.
    """
    values = {value for column in trained for value in column.values[~column.missing].tolist()}
    if len({type(value) for value in values}) > 1:
        raise DataError(f"column {label_column!r} has numbers in one file and texts in another")
    ordered = sorted(value for value in values if isinstance(value, str) or value >= 0)
    if not ordered or isinstance(ordered[0], str) or ordered == list(range(len(ordered))):
        return ordered, []
    which = f"from {ordered[0]:,} to {ordered[-1]:,}"
    return ordered, [
        f"labels are {len(ordered):,} different numbers {which}; they become classes 0 to"
        f" {len(ordered) - 1:,} in their order"
    ]


def reason_of(value: Any, count: int | None) -> str:
    if count is not None:
        return f"label {value} is out of range, it must be 0 to {count - 1}"
    if not isinstance(value, str) and value < 0:
        return f"label {value} is out of range, it must be at least 0"
    return f"label {value!r} is not in the train split"


def check_classes(root: Path, shards: Shards, on_fault: OnShardFault) -> list[str]:
    """Returns notes on classes without images.

    A split without rows is a fault, and so is a train split with fewer than two classes.
    """
    notes = []
    for split, use in (("train", "train on"), ("test", "measure on")):
        labels, files = shards.joined(split), shards.files[split]
        if not len(labels) and all(path in shards.labels for path in files):
            on_fault(files[0], None, "no rows")
        present = set(labels.tolist()) - {NONE}
        if split == "train" and len(labels) and len(present) < 2:
            on_fault(
                root,
                None,
                f"{len(present)} classes with images to train on; there must be at least two",
            )
        lacking = [
            printable(name) for label, name in enumerate(shards.classes) if label not in present
        ]
        if lacking:
            notes.append(
                f"{len(lacking):,} of {len(shards.classes):,} classes have no images to {use}:"
                f" {shown(lacking[:3], len(lacking))}"
            )
    return notes
