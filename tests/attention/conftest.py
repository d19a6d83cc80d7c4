import pytest

from cpsam.torch_state import thread_count


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """With tensors this small, threads only wait for each other."""
    with thread_count(1):
        yield
