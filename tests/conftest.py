import functools

import pytest


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
