from collections.abc import Iterator

import pytest

from cpsam.torch_state import thread_count


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Sets one thread, also for the fixtures that train once per file.

    Networks this small only wait for a second thread, most of all on a busy machine.
    """
    with thread_count(1):
        yield
