import functools

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """With tensors this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def one_onnx_registry():
    """torch.onnx parses onnxscript's 500 functions again at each export, a second each time."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    original = registration.ONNXRegistry.from_torchlib
    registration.ONNXRegistry.from_torchlib = staticmethod(functools.cache(original))
    yield
    registration.ONNXRegistry.from_torchlib = original
