"""Where the image files of a streamed split lie: in a folder, or in the rows of memory-mapped
tables.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cpsam.data.decode import read_image
from cpsam.data.storage.unpacked_shard import read_row

# a file, or a row of a table: all that a process that reads an image has to be told
Location = str | tuple[str, int]


class ImageSource(Protocol):
    """Image files, numbered."""

    def __len__(self) -> int: ...

    def locate(self, index: int) -> Location: ...


class Files:
    """The files of a folder.

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
    """The rows of several tables, one after the other.

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
    """The bytes of an image file, and what to call it in errors.

    Raises:
        DataError: If it cannot be read.
    """
    if isinstance(location, tuple):
        return read_row(*location)
    return read_image(location), location
