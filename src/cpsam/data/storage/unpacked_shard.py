"""Unpacks a parquet shard into the cache, as an Arrow file from which any row can be read.

A row of a parquet file cannot be read by itself: the reader takes a row group, many images, at a
time. An order drawn over the whole set would read each image as often in an epoch. So each shard is
written once as an Arrow file, which is mapped into memory. The image files in it stay as they are.

pyarrow is imported where it is used: it takes half a second, and files do not need it.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cpsam.data.split import Indices
from cpsam.data.storage.cache_folder import cache_folder, locked
from cpsam.errors import DataError
from cpsam.files import hash_json, replacing

OPEN_TABLES = 512
DIGEST_BYTES = 8


def unpack(path: Path, image_column: str, label_column: str) -> Path:
    """Returns the Arrow file of a shard in the cache.

    If it is missing, one process writes it while others wait.

    Args:
        path: A parquet file. Its size and time of change stand for its content.
        image_column: Struct column with the field ``bytes``.
        label_column: Checked to be there.

    Raises:
        DataError: If the shard is damaged, or the cache cannot be written.
    """
    try:
        status = path.stat()
        key = hash_json(
            ["shard 2", str(path.resolve()), status.st_size, status.st_mtime_ns, image_column]
        )
        table = cache_folder() / "shards" / f"{path.stem}-{key[:24]}.arrow"
        if table.is_file():
            return table
        table.parent.mkdir(parents=True, exist_ok=True)
        with locked(table.with_suffix(".lock")):
            if not table.is_file():
                write_table(path, image_column, label_column, table)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be unpacked into the cache ({error}); CPSAM_CACHE can name another"
            " folder for it"
        ) from error
    return table


def write_table(path: Path, image_column: str, label_column: str, table: Path) -> None:
    """Writes the image files of a shard, as they are, into an Arrow file.

    It takes its name only when it is complete and on the disk.

    Raises:
        DataError: If the shard is damaged, or a column is missing or of another type.
        OSError: If there is no room.
    """
    import pyarrow as pa

    from cpsam.data.storage.parquet import read_bytes

    schema = pa.schema(
        [("bytes", pa.binary()), ("digest", pa.binary(DIGEST_BYTES))], {"source": os.fsencode(path)}
    )
    row = 0
    with replacing(table) as unfinished, unfinished.open("xb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            for batch in read_bytes(path, image_column, label_column):
                digests = [
                    row_digest(table, row + index, data.as_py()) for index, data in enumerate(batch)
                ]
                writer.write_batch(
                    pa.record_batch(
                        [batch.cast(pa.binary()), pa.array(digests, schema.field(1).type)],
                        schema=schema,
                    )
                )
                row += len(batch)
        file.flush()
        os.fsync(file.fileno())


def row_digest(table: Path, row: int, data: bytes | None) -> bytes:
    """Returns the checksum beside the image of a row; it is valid only for that row and table."""
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
    """Returns a mapped table, the ends of its batches, and the name of the file behind it."""
    import pyarrow as pa

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
