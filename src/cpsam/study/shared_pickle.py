"""Writes objects into a file that many processes read, without a copy of large arrays in each."""

import mmap
import os
import pickle
from typing import IO, Any

import cloudpickle

ALIGNMENT = 64  # bytes


def write_shared(value: object, file: IO[bytes]) -> None:
    """Writes a pickle, and behind it the bytes of the arrays.

    cloudpickle carries the classes and functions of a script or a notebook by value.

    Raises:
        Exception: Whatever an object raises that cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    pickle.dump((content, [array.nbytes for array in arrays]), file)
    for array in arrays:
        file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
        file.write(array)
    file.flush()


def read_shared(descriptor: int) -> Any:
    """Returns what was written. Arrays stay in the file; a page that is changed becomes a copy."""
    memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    content, sizes = pickle.load(memory)  # noqa: S301  # The study wrote it into a nameless file.
    place, arrays = memory.tell(), []
    for size in sizes:
        place += -place % ALIGNMENT
        arrays.append(memoryview(memory)[place : place + size])
        place += size
    return pickle.loads(content, buffers=arrays)  # noqa: S301
