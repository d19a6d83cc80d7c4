"""Hashes pixels and labels, to tell what a run was trained on."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cpsam.data.parallel import cpu_count
from cpsam.data.split import Pixels
from cpsam.files import hash_json

BLOCK_BYTES = 1 << 24


def hash_array(array: NDArray[np.generic]) -> str:
    """Returns the SHA-256 over dtype, shape and the digests of blocks of 16 MiB.

    The blocks are hashed in parallel, because hashing takes most of the time of a warm start.
    """
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    blocks = [data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES)]
    with ThreadPoolExecutor(cpu_count()) as pool:
        digests = list(pool.map(lambda block: hashlib.sha256(block).hexdigest(), blocks))
    return hash_json([array.dtype.str, array.shape, digests])


def fingerprint(classes: Sequence[str], splits: Iterable[tuple[Pixels, NDArray[np.int64]]]) -> str:
    """Returns the fingerprint of a data set.

    It depends on the class names, on pixels (N, H, W, C) and labels (N,) of each split, and on
    their order.

    Example:
        >>> images, labels = np.zeros((2, 4, 6, 1), np.uint8), np.array([0, 1])
        >>> one = fingerprint(["a", "b"], [(images, labels)])
        >>> one == fingerprint(["a", "b"], [(images, labels[::-1])])
        False
    """
    # The byte order is fixed, so that the same data has the same name on every machine.
    parts = [[hash_array(pixels), hash_array(labels.astype("<i8"))] for pixels, labels in splits]
    return hash_json(["cpsam data 1", list(classes), parts])
