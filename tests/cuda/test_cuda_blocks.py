"""What the blocks compute on a GPU, in all precisions and layouts that training uses there.

TF32 and float16 have 10 bits of mantissa, bfloat16 has 7. So a factor is off by at most 2**-11, or
2**-8. Some roundings follow each other in a block, and a softmax makes their sum larger.
"""

from itertools import product

import pytest
import torch
from support.definitions import define
from support.gpu import C, block, every, images, off, tf32
from support.variants import CONFIGURATIONS

from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START

IDENTITY = [
    (name, arguments) for name, arguments in CONFIGURATIONS if name not in NOT_IDENTITY_AT_START
]
TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 6e-2}
TF32_TOLERANCE = TOLERANCE[torch.float16] / 2  # only the factors are rounded, not what is stored
FLOAT32_TOLERANCE = 1e-5


@every(CONFIGURATIONS)
@torch.no_grad()
def test_float64_is_the_definition(device, name, arguments):
    module, x = block(device, name, arguments, torch.float64), images(device, size=(2, C, 3, 5))
    assert off(module(x.double()), define(module, x.double())) < 1e-12


@every(CONFIGURATIONS)
@torch.no_grad()
def test_float32_is_close_to_float64_with_tf32_and_without(device, name, arguments):
    module, x = block(device, name, arguments), images(device)
    expected = block(device, name, arguments, torch.float64)(x.double())
    with tf32(False):
        assert off(module(x), expected) < FLOAT32_TOLERANCE
    with tf32(True):
        assert off(module(x), expected) < TF32_TOLERANCE


@every(CONFIGURATIONS)
@torch.no_grad()
def test_low_precision_is_close_to_float64(device, name, arguments):
    x = images(device)
    expected = block(device, name, arguments, torch.float64)(x.double())
    for dtype, tolerance in TOLERANCE.items():
        with torch.autocast(device.type, dtype):
            low = block(device, name, arguments)(x)
        assert low.dtype == torch.float32 and off(low, expected) < tolerance, dtype
        low = block(device, name, arguments, dtype)(x.to(dtype))
        assert low.dtype == dtype and off(low, expected) < tolerance, dtype


@every(IDENTITY)
def test_a_new_block_is_the_identity_bit_by_bit(device, name, arguments):
    module, x = ATTENTION[name](C, **arguments, device=device), images(device)
    layouts = torch.contiguous_format, torch.channels_last
    for training, dtype, layout, rounded in product(
        (True, False), (None, *TOLERANCE), layouts, (True, False)
    ):
        with tf32(rounded), torch.autocast(device.type, dtype, enabled=dtype is not None):
            y = module.train(training)(x.contiguous(memory_format=layout))
        assert torch.equal(y, x), (training, dtype, layout, rounded)


@every(CONFIGURATIONS)
@torch.no_grad()
def test_large_images_give_finite_numbers(device, name, arguments):
    for dtype, size in ((torch.float32, 1e4), (torch.bfloat16, 1e4), (torch.float16, 1e1)):
        y = block(device, name, arguments, dtype)(size * images(device, dtype))
        assert y.isfinite().all(), dtype


@every(CONFIGURATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, *TOLERANCE], ids=str)
def test_channels_last_is_kept_there_and_back(device, name, arguments, dtype):
    module = block(device, name, arguments).to(memory_format=torch.channels_last)
    x = images(device).contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        y = module(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
