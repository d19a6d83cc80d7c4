"""Labelled images in parquet files as the Hugging Face hub has them: a struct column with the bytes of image files, an integer column."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cpsam.data.decode import decode_exact
from cpsam.data.parallel import map_ordered
from cpsam.data.split import Indices, Pixels
from cpsam.errors import DataError

ROWS_A_BATCH = 512
COLUMNS = (("image", "label"), ("img", "fine_label"), ("img", "label"))
ROWS_A_PIECE = 100  # of files as large as photographs


@contextmanager
def open_parquet(path: Path, image_column: str, label_column: str) -> Iterator[pq.ParquetFile]:
    """A parquet file with the two columns in it, and every error of reading it turned into a DataError that names it."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            for column in (image_column, label_column):
                if column not in schema.names:
                    raise DataError(f"{path}: no column {column!r}; it has {', '.join(schema.names)}")
            image_type, label_type = schema.field(image_column).type, schema.field(label_column).type
            if not (pa.types.is_struct(image_type) and image_type.get_field_index("bytes") >= 0):
                raise DataError(f"{path}: column {image_column!r} is {image_type}, not a struct with the field 'bytes'")
            if not pa.types.is_integer(label_type):
                raise DataError(f"{path}: column {label_column!r} is {label_type}, not whole numbers")
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path}: cannot be read as parquet, it may be cut short or damaged ({reason})") from error


def read_labels(path: Path, image_column: str, label_column: str, num_classes: int | None) -> tuple[Indices, tuple[str, ...] | None]:
    """The label of every row, and the class names if the schema has them.

    Args:
        path: A parquet file.
        image_column: Checked to be there.
        label_column: What to read.
        num_classes: Labels must be below it, and as many names must be given. None: as many as there are names, or any number.

    Returns:
        Labels, (N,), and names from the schema's ``huggingface`` metadata, or None.

    Raises:
        DataError: If the file is damaged, a column is missing or of another type, or a label is missing or out of range.
    """
    labels, missing, names = label_column_of(path, image_column, label_column)
    if missing.any():
        raise DataError(f"{path}, row {missing.argmax()}: no label in column {label_column!r}")
    limit = num_classes or (len(names) if names else np.iinfo(np.int64).max)
    wrong = np.flatnonzero((labels < 0) | (labels >= limit))
    if len(wrong):
        raise DataError(f"{path}, row {wrong[0]}: label {labels[wrong[0]]} is out of range, it must be 0 to {limit - 1}")
    if names is not None and len(names) != (num_classes or len(names)):
        raise DataError(f"{path}: its metadata names {len(names)} classes, not {num_classes}")
    return labels, names


def label_column_of(path: Path, image_column: str, label_column: str) -> tuple[Indices, NDArray[np.bool_], tuple[str, ...] | None]:
    """The label of every row as it is, (N,), -1 where there is none; where there is none, (N,); and class names as :func:`read_labels`."""
    with open_parquet(path, image_column, label_column) as file:
        column = file.read(columns=[label_column]).column(0)
        labels = column.fill_null(-1).to_numpy().astype(np.int64)
        return labels, column.is_null().to_numpy(), class_names(file.schema_arrow, label_column)


def find_columns(path: Path) -> tuple[str, str]:
    """The names of the image and the label column, as the sets of the hub call them."""
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        names = []  # whoever reads the file will say so
    return next((pair for pair in COLUMNS if set(pair) <= set(names)), COLUMNS[0])


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names))


def read_pixels(path: Path, image_column: str, label_column: str, size: tuple[int, int]) -> Iterator[Pixels]:
    """Decode the images of a parquet file.

    Args:
        path: A parquet file.
        image_column: Struct column with the field ``bytes``.
        label_column: Checked to be there.
        size: (H, W) that every image must have.

    Yields:
        (B, H, W, 3), in the order of the rows.

    Raises:
        DataError: With file and row, if an image does not decode or has another size.
    """

    def decode(part: tuple[int, pa.RecordBatch]) -> Pixels:
        first, batch = part
        images = batch.column(0).field("bytes").to_pylist()
        for offset, image in enumerate(images):
            if image is None:
                raise DataError(f"{path}, row {first + offset}: no image in column {image_column!r}")
        return np.stack([decode_exact(image, size, f"{path}, row {first + offset}") for offset, image in enumerate(images)])

    def parts(file: pq.ParquetFile) -> Iterator[tuple[int, pa.RecordBatch]]:
        first = 0
        for batch in file.iter_batches(ROWS_A_BATCH, columns=[f"{image_column}.bytes"]):
            yield first, batch
            first += len(batch)

    with open_parquet(path, image_column, label_column) as file:
        yield from map_ordered(decode, parts(file))


def write_table(path: Path, image_column: str, label_column: str, table: Path) -> None:
    """Write the image files of a shard, as they are, as an Arrow file in which any row can be had at once.

    It takes its name only when it is complete and on the disk.

    Raises:
        DataError: If the shard is damaged, or a column is missing or of another type.
        OSError: If there is no room.
    """
    schema = pa.schema([("bytes", pa.binary())], {"source": str(path)})
    unfinished = table.with_name(f".{table.stem}-{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            with pa.ipc.new_file(file, schema) as writer:
                for batch in read_bytes(path, image_column, label_column):
                    writer.write_batch(pa.record_batch([batch], schema=schema))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(table)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_bytes(path: Path, image_column: str, label_column: str) -> Iterator[pa.Array]:
    """The image files in the rows of a shard, a few at a time, in order; null where there is none."""
    with open_parquet(path, image_column, label_column) as shard:
        batches = shard.iter_batches(ROWS_A_PIECE, columns=[f"{image_column}.bytes"])
        while (batch := next(batches, None)) is not None:
            yield batch.column(0).field("bytes")
