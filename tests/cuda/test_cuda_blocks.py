"""What the blocks compute on a GPU, in all precisions and layouts that training uses there."""

from itertools import product

import pytest
import torch
from support.gpu import DEVICE, ON_GPU

from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START
from cpsam.functional import position_squeeze
from cpsam.testing import randomise

pytestmark = ON_GPU

C = 24
SHAPE = (3, C, 9, 14)
CONFIGURATIONS = [
    *((name, {"hidden_channels": 5} if name == "conv_control" else {}) for name in ATTENTION),
    *(
        ("cpsam", {"interaction": interaction, "fusion": fusion, "norm": norm})
        for interaction, fusion, norm in product(
            ("mlp", "affinity"), ("sum", "concat", "depthwise", "grouped"), ("batch", "none")
        )
    ),
    *(
        ("non_local", {"mode": mode, "subsample": subsample})
        for mode, subsample in product(
            ("embedded_gaussian", "gaussian", "dot_product", "concatenation"), (False, True)
        )
    ),
    ("non_local", {"scaled": True}),
]
IDENTITY = [
    (name, arguments) for name, arguments in CONFIGURATIONS if name not in NOT_IDENTITY_AT_START
]
PRECISIONS = (torch.float16, torch.bfloat16)


def label(value):
    return (
        ",".join(f"{key}={item}" for key, item in value.items()) or "default"
        if isinstance(value, dict)
        else str(value)
    )


def every(configurations):
    return pytest.mark.parametrize("name, arguments", configurations, ids=label)


def block(name, arguments, dtype=torch.float32):
    return randomise(ATTENTION[name](C, **arguments, device=DEVICE, dtype=dtype)).eval()


def images(dtype=torch.float32):
    return torch.randn(SHAPE, device=DEVICE, dtype=dtype)


def off(actual, expected):
    """In root mean square."""
    return ((actual.double() - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.fixture
def tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # convolutions take TF32 by default
    yield
    torch.set_float32_matmul_precision(before)


@every(CONFIGURATIONS)
@torch.no_grad()
def test_low_precision_is_close_to_float64(name, arguments):
    x = images()
    module = block(name, arguments)
    expected = block(name, arguments, torch.float64)(x.double())
    assert off(module(x), expected) < 1e-2  # convolutions take TF32 by default
    for dtype, tolerance in zip(PRECISIONS, (2e-2, 6e-2), strict=True):
        with torch.autocast(DEVICE.type, dtype):
            low = module(x)
        assert low.dtype == torch.float32 and off(low, expected) < tolerance, dtype
        low = block(name, arguments, dtype)(x.to(dtype))
        assert low.dtype == dtype and off(low, expected) < tolerance, dtype


@every(IDENTITY)
@pytest.mark.usefixtures("tf32")
def test_a_new_block_is_the_identity_bit_by_bit(name, arguments):
    module, x = ATTENTION[name](C, **arguments, device=DEVICE), images()
    for training, dtype in product((True, False), (None, *PRECISIONS)):
        for layout in (torch.contiguous_format, torch.channels_last):
            with torch.autocast(DEVICE.type, dtype, enabled=dtype is not None):
                assert torch.equal(module.train(training)(x.contiguous(memory_format=layout)), x), (
                    training,
                    dtype,
                    layout,
                )


@every(CONFIGURATIONS)
@torch.no_grad()
def test_large_images_give_finite_numbers(name, arguments):
    for dtype, size in ((torch.float32, 1e4), (torch.bfloat16, 1e4), (torch.float16, 1e1)):
        assert block(name, arguments, dtype)(size * images(dtype)).isfinite().all(), dtype


@every(CONFIGURATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, *PRECISIONS], ids=str)
def test_channels_last_is_kept_there_and_back(name, arguments, dtype):
    module = block(name, arguments).to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
        y = module(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_the_gradient_of_a_maximum_that_is_tied_is_shared_and_the_same_each_time():
    x = torch.zeros(3, C, 33, 47, device=DEVICE)
    x[:, ::2, ::4, 5] = 1  # nine positions hold the maximum of every other channel
    weights = torch.rand(3, C, 1, 1, device=DEVICE)
    gradients = []
    for _ in range(10):
        leaf = x.clone().requires_grad_()
        _, maximum = position_squeeze(leaf)
        (maximum * weights).sum().backward()
        gradients.append(leaf.grad)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    torch.testing.assert_close(gradients[0][:, ::2], weights[:, ::2] * x[:, ::2] / 9)
    torch.testing.assert_close(
        gradients[0][:, 1::2], (weights[:, 1::2] / (33 * 47)).expand(-1, -1, 33, 47)
    )


@pytest.mark.parametrize("name", ["cpsam", "non_local", "global_context"])
def test_gradients_are_those_of_the_cpu(name):
    module, x = block(name, {}, torch.float64), images(torch.float64)
    twin = block(name, {}, torch.float64).to("cpu")
    module(x).square().sum().backward()
    twin(x.cpu()).square().sum().backward()
    for (key, parameter), other in zip(module.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), other.grad, rtol=1e-8, atol=1e-8, msg=key)
