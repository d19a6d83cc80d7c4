import inspect
import json
from itertools import combinations

import pytest
import torch
from support.variants import CONFIGURATIONS, VARIANTS, label

from cpsam.attention import (
    ATTENTION,
    CONTROLS,
    CPSAM,
    NOT_IDENTITY_AT_START,
    ChannelSqueezeAttention,
    PositionSqueezeAttention,
    argument_names,
    block_arguments,
)
from cpsam.attention._common import hidden_channels
from cpsam.testing import randomise

REQUIRED = {"conv_control": {"hidden_channels": 5}}
REDUCTION = [name for name, cls in ATTENTION.items() if "reduction" in argument_names(cls)]
WORDS = [
    (name, key)
    for name, cls in ATTENTION.items()
    for key in ("mode", "norm", "interaction", "fusion")
    if key in argument_names(cls)
]


@pytest.mark.parametrize("value", [0, -4, 2.0, "64", True, None], ids=repr)
@pytest.mark.parametrize("name", ATTENTION)
def test_channels_that_are_no_positive_whole_number_are_refused(name, value):
    with pytest.raises(
        ValueError, match=f"in_channels must be a whole number, at least 1; got {value!r}"
    ):
        ATTENTION[name](value, **REQUIRED.get(name, {}))


@pytest.mark.parametrize("value", [0, 1.5], ids=repr)
@pytest.mark.parametrize("name", REDUCTION)
def test_a_reduction_below_one_or_broken_is_refused(name, value):
    with pytest.raises(
        ValueError, match=f"reduction must be a whole number, at least 1; got {value!r}"
    ):
        ATTENTION[name](24, reduction=value)


@pytest.mark.parametrize("name, key", WORDS)
def test_an_unknown_word_is_refused_with_the_choices_and_the_nearest(name, key):
    default = inspect.signature(ATTENTION[name]).parameters[key].default
    with pytest.raises(
        ValueError,
        match=f"{key} must be one of .*{default}.*got '{default}s', did you mean '{default}'?",
    ):
        ATTENTION[name](24, **{key: f"{default}s"})


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("cbam", {"kernel_size": 4}, "kernel_size must be odd.*got 4"),
        ("cbam", {"kernel_size": 0}, "kernel_size must be a whole number, at least 1; got 0"),
        ("eca", {"kernel_size": 2}, "kernel_size must be odd.*got 2"),
        ("eca", {"kernel_size": -3}, "kernel_size must be a whole number, at least 1; got -3"),
        ("bam", {"dilation": 0}, "dilation must be a whole number, at least 1; got 0"),
        (
            "conv_control",
            {"hidden_channels": 0},
            "hidden_channels must be a whole number, at least 1; got 0",
        ),
        (
            "non_local",
            {"mode": "dot_product", "scaled": True},
            "scaled applies to the softmax.*got mode='dot_product'",
        ),
        (
            "non_local",
            {"mode": "concatenation", "scaled": True},
            "scaled applies to the softmax.*got mode='concatenation'",
        ),
    ],
    ids=label,
)
def test_other_arguments_out_of_range_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        ATTENTION[name](24, **arguments)


@pytest.mark.parametrize("branch", [ChannelSqueezeAttention, PositionSqueezeAttention])
def test_the_branches_of_cpsam_check_their_arguments_too(branch):
    with pytest.raises(ValueError, match=r"in_channels .* got 0"):
        branch(0)
    with pytest.raises(ValueError, match=r"reduction .* got 0"):
        branch(24, reduction=0)
    with pytest.raises(TypeError, match="ratio"):
        branch(24, ratio=16)
    with pytest.raises(ValueError, match="interaction must be one of affinity, mlp; got 'conv'"):
        PositionSqueezeAttention(24, interaction="conv")


@pytest.mark.parametrize("name", ATTENTION)
def test_an_unknown_or_positional_argument_is_a_type_error(name):
    with pytest.raises(TypeError, match="ratio"):
        ATTENTION[name](24, **REQUIRED.get(name, {}), ratio=4)
    with pytest.raises(TypeError, match="positional"):
        ATTENTION[name](24, 4, **REQUIRED.get(name, {}))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_repr_tells_configurations_apart(name):
    reprs = [
        repr(ATTENTION[name](24, **arguments)) for kind, arguments in CONFIGURATIONS if kind == name
    ]
    default = [arguments for kind, arguments in CONFIGURATIONS if kind == name]
    defaults = {key: p.default for key, p in inspect.signature(ATTENTION[name]).parameters.items()}
    for (one, first), (other, second) in combinations(zip(default, reprs, strict=True), 2):
        assert (first == second) == ({**defaults, **one} == {**defaults, **other}), (one, other)


@pytest.mark.parametrize("name, arguments", CONFIGURATIONS, ids=label)
def test_the_arguments_read_back_build_the_same_block(name, arguments):
    block = ATTENTION[name](40, **arguments)
    stored = json.loads(json.dumps(block_arguments(block)))
    assert stored.items() >= {"in_channels": 40, **arguments}.items() and set(stored) == set(
        argument_names(ATTENTION[name])
    )
    again = ATTENTION[name](**stored)
    assert repr(again) == repr(block)
    x = torch.randn(2, 40, 5, 3)
    with torch.no_grad():
        assert torch.equal(randomise(again).eval()(x), randomise(block).eval()(x))


def test_a_bottleneck_is_never_narrower_than_eight():
    assert [
        hidden_channels(*pair)
        for pair in ((32, 16), (128, 16), (144, 16), (256, 16), (7, 1), (24, 2))
    ] == [8, 8, 9, 16, 8, 12]
    block = CPSAM(32)
    assert (
        block.channel_squeeze.squeeze.out_features
        == block.position_squeeze.relate.squeeze.out_features
        == 8
    )


def test_tables_name_blocks_that_there_are():
    assert (
        set(ATTENTION) > CONTROLS
        and set(ATTENTION) > NOT_IDENTITY_AT_START
        and not CONTROLS & NOT_IDENTITY_AT_START
    )
    assert set(VARIANTS) == set(ATTENTION)
