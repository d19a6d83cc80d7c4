"""Where the image files of a streamed split lie: in a folder, or in the rows of memory-mapped
tables.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cpsam.data.decode import read_image
from cpsam.data.split import Indices
from cpsam.errors import DataError

# a file, or a row of a table: all that a process that reads an image has to be told
Location = str | tuple[str, int]
OPEN_TABLES = 512
DIGEST_BYTES = 8


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
        tables: Written by :func:`cpsam.data.storage.shards.unpack`.
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


def row_digest(table: Path, row: int, data: bytes | None) -> bytes:
    """Returns what a row of a table must have beside its image: it holds for that row of that table
    alone.
    """
    start = f"{table.stem} {row} {data is None} ".encode(errors="surrogateescape")
    return hashlib.sha256(start + (data or b"")).digest()[:DIGEST_BYTES]


def read_row(table: str, row: int) -> tuple[bytes, str]:
    reader, ends, name = open_table(table)
    batch = int(np.searchsorted(ends, row, side="right"))
    columns = reader.get_batch(batch).columns if batch < len(ends) else None
    inside = row - (int(ends[batch - 1]) if batch else 0)
    data = columns and columns[0][inside].as_py()
    if columns is None or columns[1][inside].as_py() != row_digest(Path(table), row, data):
        raise DataError(
            f"{table}: row {row} is not what was written; delete it, and it is made again"
        )
    if data is None:
        raise DataError(f"{name}, row {row}: no image")
    return data, f"{name}, row {row}"


@lru_cache(OPEN_TABLES)
def open_table(path: str) -> tuple[Any, Indices, str]:
    """Returns a table, mapped into memory, where its batches end, and the name of the file that it
    was made from.
    """
    import pyarrow as pa  # it takes half a second, and files do not need it

    try:
        reader = pa.ipc.open_file(pa.memory_map(path))
        if reader.schema.names != ["bytes", "digest"]:
            raise TypeError("it has other columns")
        ends = np.cumsum(
            [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]
        )
        return reader, ends, os.fsdecode(reader.schema.metadata[b"source"])
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({str(error).partition(chr(10))[0]}); delete it, and it is"
            " made again"
        ) from error
