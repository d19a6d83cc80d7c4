"""Reads parquet files with labelled images, as the Hugging Face hub has them.

Images are a struct column with the bytes of image files, labels a column of numbers or texts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cpsam.data.decode import decode_exact, refuse_pointer
from cpsam.data.parallel import map_ordered
from cpsam.data.split import Indices, Pixels
from cpsam.errors import DataError
from cpsam.files import open_regular, parse_json
from cpsam.text import printable

ROWS_PER_BATCH = 512
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
ROWS_PER_PIECE = 100  # fewer, because image files may be as large as photographs


@contextmanager
def open_file(path: Path) -> Iterator[pq.ParquetFile]:
    """Opens a parquet file; every error of reading it becomes a DataError that names it."""
    try:
        with (
            open_regular(path) as opened,
            pq.ParquetFile(opened, page_checksum_verification=True) as file,
        ):
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        refuse_pointer(read_head(path), str(path))
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path}: cannot be read as parquet, it may be cut short or damaged ({reason})"
        ) from error


def read_head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(100)


@contextmanager
def open_parquet(path: Path, image_column: str, label_column: str) -> Iterator[pq.ParquetFile]:
    """Opens a parquet file with the two columns in it."""
    with open_file(path) as file:
        schema = file.schema_arrow
        for column in (image_column, label_column):
            if schema.names.count(column) != 1:
                count = "no column" if column not in schema.names else "more than one column"
                raise DataError(f"{path}: {count} {column!r}; it has {columns_of(schema)}")
        image_type, label_type = schema.field(image_column).type, schema.field(label_column).type
        if not is_image(image_type):
            raise DataError(
                f"{path}: column {image_column!r} is {image_type}, not a struct with the field"
                " 'bytes' of binary data"
            )
        if not is_label(label_type):
            raise DataError(
                f"{path}: column {label_column!r} is {label_type}, not whole numbers or texts"
            )
        yield file


def columns_of(schema: pa.Schema) -> str:
    return ", ".join(map(printable, schema.names))


def is_image(kind: pa.DataType) -> bool:
    """Whether a column has the bytes of image files; a text would be the path of a file."""
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(inner) for test in tests)


def is_label(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_integer(inner) or pa.types.is_boolean(inner) or is_text(inner)


def is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


@dataclass(frozen=True)
class LabelColumn:
    """Holds labels as they are in a file.

    Args:
        values: int64, or texts, (N,).
        missing: Whether the label is missing, (N,).
        names: Names of the classes from the file's metadata, or None.
    """

    values: NDArray
    missing: NDArray[np.bool_]
    names: tuple[str, ...] | None


def read_labels(
    path: Path, image_column: str, label_column: str, num_classes: int | None
) -> tuple[Indices, tuple[str, ...] | None]:
    """Returns the label of every row, and the class names if the schema has them.

    Args:
        path: A parquet file.
        image_column: Checked to be there.
        label_column: What to read.
        num_classes: Labels must be below it, and there must be as many names. None: the number of
            names, or any number.

    Returns:
        Labels, (N,), and names from the schema's ``huggingface`` metadata, or None.

    Raises:
        DataError: If the file is damaged, a column is missing or of another type, or a label is
            missing or out of range.
    """
    column = label_column_of(path, image_column, label_column)
    labels, names = column.values, column.names
    if labels.dtype != np.int64:
        raise DataError(f"{path}: column {label_column!r} has texts, not whole numbers")
    if column.missing.any():
        raise DataError(
            f"{path}, row {column.missing.argmax()}: no label in column {label_column!r}"
        )
    limit = num_classes or (len(names) if names else np.iinfo(np.int64).max)
    wrong = np.flatnonzero((labels < 0) | (labels >= limit))
    if len(wrong):
        raise DataError(
            f"{path}, row {wrong[0]}: label {labels[wrong[0]]} is out of range, it must be 0 to"
            f" {limit - 1}"
        )
    if names is not None and len(names) != (num_classes or len(names)):
        raise DataError(f"{path}: its metadata names {len(names)} classes, not {num_classes}")
    return labels, names


def label_column_of(path: Path, image_column: str, label_column: str) -> LabelColumn:
    """Returns the labels of a file; -1 or "" stands for a missing one.

    Raises:
        DataError: As :func:`read_labels`, but for labels that are missing or out of range.
    """
    with open_parquet(path, image_column, label_column) as file:
        column = file.read(columns=[label_column]).column(0)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if is_text(column.type):
            values = np.array(column.cast(pa.large_string()).fill_null("").to_pylist(), object)
            return LabelColumn(values, values == "", None)
        missing = column.is_null().to_numpy()
        try:
            values = column.cast(pa.int64()).fill_null(-1).to_numpy()
        except pa.ArrowInvalid as error:  # beyond int64
            raise DataError(
                f"{path}: column {label_column!r} has labels that are out of range ({error})"
            ) from error
        return LabelColumn(values, missing.copy(), class_names(file.schema_arrow, label_column))


def choose_columns(
    paths: Sequence[Path], image_column: str | None, label_column: str | None
) -> tuple[str, str]:
    """Returns the names of the image and of the label column.

    A name that is not given is the one that data sets of the hub use.

    Raises:
        DataError: If no column or several may be meant.
    """
    schema = first_schema(paths)
    given = {"image": image_column, "label": label_column}
    for role, names in (("image", IMAGE_COLUMNS), ("label", LABEL_COLUMNS)):
        if given[role] is not None:
            continue
        present = [name for name in names if name in schema.names]
        if len(present) != 1:
            which = (
                f"both {present[0]!r} and {present[1]!r} may be"
                if present
                else f"none of {', '.join(names)} is"
            )
            reason = (
                f"{which} the {role} column of {columns_of(schema)}; name it with {role}_column"
            )
            raise DataError(f"{paths[0]}: {reason}")
        given[role] = present[0]
    return str(given["image"]), str(given["label"])


def other_columns(paths: Sequence[Path], used: tuple[str, str]) -> list[str]:
    """Returns the names of the columns that are not used."""
    return [name for name in first_schema(paths).names if name not in used]


def first_schema(paths: Sequence[Path]) -> pa.Schema:
    """Returns the schema of the first file that can be read.

    Faults of the other files are reported when these are read.
    """
    first = None
    for path in paths:
        try:
            with open_file(path) as file:
                return file.schema_arrow
        except DataError as error:
            first = first or error
    raise first or ValueError("paths must not be empty")


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    try:
        names = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"][
            label_column
        ]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def read_pixels(
    path: Path, image_column: str, label_column: str, size: tuple[int, int]
) -> Iterator[Pixels]:
    """Decodes the images of a parquet file.

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
                raise DataError(
                    f"{path}, row {first + offset}: no image in column {image_column!r}"
                )
        return np.stack(
            [
                decode_exact(image, size, f"{path}, row {first + offset}")
                for offset, image in enumerate(images)
            ]
        )

    def parts(file: pq.ParquetFile) -> Iterator[tuple[int, pa.RecordBatch]]:
        first = 0
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=[f"{image_column}.bytes"]):
            yield first, batch
            first += len(batch)

    with open_parquet(path, image_column, label_column) as file:
        yield from map_ordered(decode, parts(file))


def read_bytes(path: Path, image_column: str, label_column: str) -> Iterator[pa.Array]:
    """Yields the image files of a shard, a few rows at a time, in order; null for a missing one."""
    with open_parquet(path, image_column, label_column) as shard:
        batches = shard.iter_batches(ROWS_PER_PIECE, columns=[f"{image_column}.bytes"])
        while (batch := next(batches, None)) is not None:
            yield batch.column(0).field("bytes")
