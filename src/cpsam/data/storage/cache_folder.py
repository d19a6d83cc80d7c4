"""Says where the cache is and how its entries are called, and lets one process write at a time."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpsam.locks import acquire

# Decoded images, a shard as an Arrow file, a lock, and temporary names, which end in eight digits;
# .safetensors and temporary names without an ending are of earlier versions.
ENTRY = re.compile(
    r"\.?.+-[0-9a-f]{24}((\.decoded|\.arrow)(-[0-9a-f]{8})?|\.lock|\.safetensors|-[0-9a-f]{8})"
)


def cache_folder() -> Path:
    """Returns ``CPSAM_CACHE``, or ``~/.cache/cpsam``.

    Raises:
        OSError: If this account has no home folder, as in some containers.
    """
    try:
        return Path(os.environ.get("CPSAM_CACHE") or "~/.cache/cpsam").expanduser()
    except RuntimeError as error:
        raise OSError(str(error)) from error


def cache_identity() -> tuple[int, int] | None:
    """Returns device and inode of the cache, or None if there is no cache yet."""
    try:
        status = cache_folder().stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time through; the others wait. The lock file is removed at the end."""
    with acquire(path, math.inf):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
