"""The devices of the tests that are marked `cuda`, and what those tests share.

``pytest -m cuda`` runs them on a machine with a GPU. The ordinary tests try nearly all of them on
the CPU, with the first configuration. ``CPSAM_TEST_DEVICE=cpu pytest -m cuda tests/cuda`` tries all
configurations there.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from cpsam.attention import ATTENTION
from cpsam.testing import randomise
from support.variants import label

# Deterministic algorithms want this before the first product of matrices on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

CPU = torch.device("cpu")
GPU = torch.device(os.environ.get("CPSAM_TEST_DEVICE", "cuda"))
MISSING = GPU.type == "cuda" and not torch.cuda.is_available()
ON_GPU = [pytest.mark.cuda, pytest.mark.skipif(MISSING, reason="needs a GPU")]
ONLY_ON_GPU = pytest.mark.parametrize("device", [pytest.param(GPU, marks=ON_GPU)], ids=str)
ON_EACH_DEVICE = pytest.mark.parametrize("device", [CPU, pytest.param(GPU, marks=ON_GPU)], ids=str)
C = 24


def every(configurations: Iterable[tuple[str, dict]]) -> pytest.MarkDecorator:
    """Tries a test with each configuration on a GPU, and with the first on the CPU."""
    first, *_ = found = list(configurations)
    cases = [pytest.param(CPU, *first, id="cpu")]
    for name, arguments in found:
        title = f"{name}-{label(arguments)}"
        cases.append(pytest.param(GPU, name, arguments, marks=ON_GPU, id=title))
    return pytest.mark.parametrize("device, name, arguments", cases)


def block(
    device: torch.device, name: str, arguments: dict, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Returns a block with random parameters, in eval mode; the same one each time."""
    return randomise(ATTENTION[name](C, **arguments, device=device, dtype=dtype)).eval()


def images(device: torch.device, dtype: torch.dtype = torch.float32, size=(3, C, 9, 14)) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=source).to(device, dtype)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Sets whether products and convolutions in float32 may round their factors to TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def off(actual: Tensor, expected: Tensor) -> float:
    """Returns the distance in root mean square, as a share of the expected values."""
    difference = actual.double().cpu() - expected.double().cpu()
    return (difference.norm() / expected.double().norm().cpu()).item()


def require_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compares tensors by name.

    Gradients that are zero but for rounding are compared with one hundredth of the largest tensor.
    """
    least = 0.01 * max(tensor.double().norm().item() for tensor in expected.values())
    for name, tensor in expected.items():
        distance = (found[name].double().cpu() - tensor.double().cpu()).norm().item()
        assert distance <= tolerance * (tensor.double().norm().item() + least), name
