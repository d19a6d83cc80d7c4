from collections.abc import Iterator

import pytest

from cpsam.torch_state import thread_count


@pytest.fixture(autouse=True, scope="package")  # before the fixtures that train for a whole file
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread, most of all on a busy machine."""
    with thread_count(1):
        yield
