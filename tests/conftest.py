import functools
from collections.abc import Iterator

import pytest

from cpsam.run import cost


@pytest.fixture(autouse=True, scope="session")
def short_measurements() -> Iterator[None]:
    """Times small batches in reports: no test looks at the milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "LATENCY_BATCH", 2)
        patch.setattr(cost, "REPEATS", 2)
        yield


@pytest.fixture(scope="session")
def one_onnx_registry():
    """torch.onnx parses the 500 functions of onnxscript again at each export, for a second: once is
    enough for all tests.
    """
    registry = pytest.importorskip("torch.onnx._internal.exporter._registration").ONNXRegistry
    original = registry.from_torchlib
    registry.from_torchlib = staticmethod(functools.cache(original))
    yield
    registry.from_torchlib = original
