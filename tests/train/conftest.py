from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")  # before the fixtures that train for a whole file
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
