"""Locates the image files of a streamed split: in a folder, or in rows of mapped tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cpsam.data.decode import read_image
from cpsam.data.storage.unpacked_shard import read_row

# A file, or a row of a table: all that a process needs to read an image.
Location = str | tuple[str, int]


class ImageSource(Protocol):
    """Numbers image files."""

    def __len__(self) -> int: ...

    def locate(self, index: int) -> Location: ...


class Files:
    """Numbers the files of a folder.

    Args:
        root: The folder.
        paths: Relative to it.
    """

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = str(root), paths

    def __len__(self) -> int:
        return len(self.paths)

    def locate(self, index: int) -> Location:
        return f"{self.root}/{self.paths[index]}"


class Rows:
    """Numbers the rows of several tables, one table after the other.

    Args:
        tables: Written by :func:`cpsam.data.storage.unpacked_shard.unpack`.
        counts: Rows of each.
    """

    def __init__(self, tables: Sequence[Path], counts: Sequence[int]) -> None:
        self.tables, self.ends = [str(table) for table in tables], np.cumsum(counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, index: int) -> Location:
        table = int(np.searchsorted(self.ends, index, side="right"))
        return self.tables[table], index - (int(self.ends[table - 1]) if table else 0)


def read(location: Location) -> tuple[bytes, str]:
    """Returns the bytes of an image file, and its name in errors.

    Raises:
        DataError: If it cannot be read.
    """
    if isinstance(location, tuple):
        return read_row(*location)
    return read_image(location), location
