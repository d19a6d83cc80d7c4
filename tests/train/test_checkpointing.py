"""Checkpoints of a run: written beside the computation."""

import pytest

from cpsam.train.checkpointing import BackgroundWriter


def test_a_failed_write_is_told_once_and_before_the_next() -> None:
    writer, done = BackgroundWriter(), []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    writer.submit(lambda: done.append(1))
    writer.wait()
    assert not writer.failed
    writer.submit(fail)
    with pytest.raises(OSError, match="No space left"):
        writer.submit(lambda: done.append(2))
    writer.wait()
    assert done == [1]
