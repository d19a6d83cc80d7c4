"""Reads, writes and hashes files: nothing hangs, and nothing is written by half.

No link is followed for writing, so nothing outside of the folder that was asked for is touched.
"""

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cpsam.errors import DataError

# Our largest record, the results of a study of 100,000 runs, has about 50 MB.
RECORD_BYTES = 64 * 2**20
TEMPORARY = ".writing-"

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file for reading.

    Links are followed. A FIFO, a device or a socket is refused before it is read, because reading
    could hang or never end.

    Raises:
        DataError: If `path` is not a regular file.
        OSError: If it is missing or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DataError(
            f"{path}: must be a regular file; it is"
            f" {KINDS.get(stat.S_IFMT(mode), 'something else')}"
        )
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a regular file.

    Raises:
        DataError: If `path` is not a regular file, or holds more than `max_bytes` bytes.
        OSError: If it is missing or cannot be read.
    """
    with open_regular(path) as file:
        # Python allocates all the bytes that it is asked for, so ask for those that are there.
        hint = min(os.fstat(file.fileno()).st_size, max_bytes)
        content = file.read(hint + 1)
        if len(content) > hint:
            content += file.read(max_bytes + 1 - len(content))
    if len(content) > max_bytes:
        raise DataError(f"{path}: must have at most {max_bytes:,} bytes; it has more")
    return content


def parse_json(text: str | bytes) -> Any:
    """Parses strict JSON: no NaN, no infinity, and no nesting that exhausts the stack.

    Raises:
        ValueError: If the text is anything else.

    Example:
        >>> parse_json('{"top1": NaN}')
        Traceback (most recent call last):
        ValueError: NaN is not a JSON number
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, max_bytes: int = RECORD_BYTES) -> dict[str, Any] | None:
    """Returns the JSON object in a file, or None if there is no such file.

    Raises:
        DataError: If the file is not regular, is too large, or is not one JSON object.
        OSError: If it cannot be read.
    """
    try:
        content = parse_json(read_file(path, max_bytes))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object")
    return content


def hash_json(data: object, salt: str = "") -> str:
    """Returns the SHA-256 of plain data as JSON with sorted keys, after a salt.

    These hashes name runs, data and caches that are stored, so their form must stay.

    Example:
        >>> hash_json({"b": 1, "a": 2}) == hash_json({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256((salt + json.dumps(data, sort_keys=True)).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of the content of a regular file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # pyrefly: ignore
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON object atomically.

    Raises:
        ValueError: If a number in `data` is not finite: JSON has no NaN.
        OSError: If the file cannot be written.
    """
    write_atomically(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def write_durably(path: Path, data: bytes) -> None:
    """Writes a new file and flushes it to the disk.

    An existing file or link at `path` is refused, never followed.
    """
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` for a file or folder, which takes its name at the end.

    So after a crash either the old content or the new is there. Flush the new content to the disk
    inside the block. If the block fails, the old content stays. A link at `path` is replaced, not
    followed.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)  # A folder cannot take the name of anything.
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that after a crash either the old content or the new is there."""
    with replacing(path) as temporary:
        write_durably(temporary, data)


def append_durably(path: Path, data: bytes) -> None:
    """Appends to a regular file, which is created if it is missing, and flushes it to the disk.

    A link is refused, never followed.

    Raises:
        OSError: If it cannot be written.
        DataError: If it is not a regular file.
    """
    descriptor = os.open(
        path,
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
        0o666,
    )
    with os.fdopen(descriptor, "ab") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{path}: must be a regular file")
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Removes a file, a link (never what it points to) or a folder with all that is in it.

    It may be missing.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes what writers that were killed left in a folder, or what they left for one name.

    Call it while no other process writes there.
    """
    for leftover in folder.glob(f"{TEMPORARY}{name and name + '-'}*"):
        remove(leftover)


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
