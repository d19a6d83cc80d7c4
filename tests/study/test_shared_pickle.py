"""Processes that read the same file have equal objects, and share the bytes of arrays."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cpsam.data.split import Split
from cpsam.study.shared_pickle import read_shared, write_shared


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("part", [False, True])
def test_a_split_is_read_as_it_was_written_and_lies_in_the_file_once(
    dtype: torch.dtype, part: bool
) -> None:
    pixels = torch.randint(0, 256, (50, 7, 5, 3)).to(dtype)
    split = Split(pixels.permute(0, 3, 1, 2), torch.arange(50))
    split = split.subset(np.array([4, 49, 1])) if part else split
    with tempfile.TemporaryFile() as file:
        write_shared({"split": split, "double": lambda x: 2 * x}, file)
        size = Path(f"/proc/self/fd/{file.fileno()}").stat().st_size
        assert size < pixels.nbytes + 4000
        one, other = (read_shared(file.fileno()) for _ in range(2))
    for each in (one, other, {"split": copy.deepcopy(split), "double": None}):
        read = each["split"]
        assert torch.equal(read.images, split.images) and torch.equal(read.labels, split.labels)
        assert np.array_equal(read.pixels(slice(None)), split.pixels(slice(None)))
        assert read.pixels(slice(None)).strides == split.pixels(slice(None)).strides
    assert one["double"](4) == 8
    one["split"].pixels(slice(None))[:] = 0
    one["split"].labels[0] = 77
    assert torch.equal(other["split"].images, split.images) and other["split"].labels[0] != 77
