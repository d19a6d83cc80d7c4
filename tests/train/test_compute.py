"""What "auto" means is a function of the device and of the features of the processor."""

from typing import Any

import pytest
import torch

from cpsam.errors import UserError
from cpsam.train import Recipe
from cpsam.train.compute import (
    Compute,
    choose_compute,
    find_device,
    has_fast_bfloat16,
    processor_features,
    reproducible,
)


@pytest.mark.parametrize(
    ("features", "gains"),
    [
        ({}, False),
        # This processor has the instruction at half the rate.
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
    ],
)
def test_where_bfloat16_gains(features: dict[str, Any], gains: bool) -> None:
    assert has_fast_bfloat16(features) is gains


def test_auto_is_settled_once_and_words_are_obeyed() -> None:
    auto = choose_compute(Recipe(), "cpu")
    assert auto == Compute(
        "cpu",
        "bfloat16" if has_fast_bfloat16(processor_features()) else "float32",
        True,
        torch.get_num_threads(),
    )
    assert auto.memory_format is torch.channels_last
    told = choose_compute(Recipe(precision="bfloat16", channels_last="off"), "cpu")
    assert (told.precision, told.channels_last, told.memory_format) == (
        "bfloat16",
        False,
        torch.contiguous_format,
    )
    assert choose_compute(Recipe(precision="float32", channels_last="on"), "cpu").channels_last


def test_the_device_is_the_gpu_if_there_is_one() -> None:
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(
        UserError, match="device must be 'cpu' or 'cuda', perhaps with a number; got 'tpu'"
    ):
        find_device("tpu")


def test_threads_and_random_state_are_put_back_after_an_error() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with (
        pytest.raises(RuntimeError, match="oops"),
        reproducible(Compute("cpu", "float32", True, threads + 2), torch.device("cpu")),
    ):
        assert torch.get_num_threads() == threads + 2
        torch.rand(3)
        raise RuntimeError("oops")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_auto_is_bfloat16_and_channels_last() -> None:
    assert (choose_compute(Recipe()).precision, choose_compute(Recipe()).channels_last) == (
        "bfloat16",
        True,
    )
    assert not choose_compute(Recipe(precision="float32")).channels_last
