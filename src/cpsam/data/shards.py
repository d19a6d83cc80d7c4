"""Parquet shards as the Hugging Face hub has them, and the tables made of them, in which every row can be had at once.

A row of a parquet file cannot be read by itself: the reader takes a row group, many images, at a time, so an order drawn over the whole set
would read each image as often in an epoch. So each shard is written once into the cache as an Arrow file, which is mapped into memory; the
image files in it stay as they are.
"""

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cpsam.data.cache import cache_folder
from cpsam.data.digest import hash_plain
from cpsam.errors import DataError


def find_shards(places: Sequence[Path], split: str, advice: str) -> list[Path]:
    """The parquet files of one split, in order, complete.

    Args:
        places: Folders to look in; the first one that has any counts.
        split: As the files' names begin, such as ``"train"``.
        advice: What to do where there are none, the end of the error message.

    Raises:
        DataError: If there are none, or one of several is missing.
    """
    paths = next((found for place in places if (found := sorted(place.glob(f"{split}-*.parquet")))), [])
    if not paths:
        raise DataError(f"no {split}-*.parquet in {' or '.join(map(str, places))}; {advice}")
    for path in paths:
        numbered = re.fullmatch(rf"{split}-\d+-of-(\d+)\.parquet", path.name)
        if numbered and int(numbered[1]) != len(paths):
            raise DataError(f"{path}: one of {int(numbered[1])} files by its name, but {len(paths)} {split} files are in {path.parent}")
    return paths


def unpack(path: Path, image_column: str, label_column: str) -> Path:
    """The Arrow file of a shard, in the cache; written if it is not there, by one process while others wait.

    Args:
        path: A parquet file. Its size and time of change stand for its content.
        image_column: Struct column with the field ``bytes``.
        label_column: Checked to be there.

    Raises:
        DataError: If the shard is damaged, or there is no room for it.
    """
    # Here because pyarrow takes half a second to import, and a warm start does not need it.
    from cpsam.data.parquet import write_table

    status = path.stat()
    key = hash_plain(["shard 1", str(path.resolve()), status.st_size, status.st_mtime_ns, image_column])
    try:
        table = cache_folder() / "shards" / f"{path.stem}-{key[:24]}.arrow"
        if table.exists():
            return table
        table.parent.mkdir(parents=True, exist_ok=True)
        with locked(table.with_suffix(".lock")):
            if not table.exists():
                write_table(path, image_column, label_column, table)
    except OSError as error:
        raise DataError(f"no room for what is in {path} ({error}); CPSAM_CACHE can name a folder that has it") from error
    return table


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time through."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)
