"""Parameters as published: SE, NL, SNL, GC and CBAM, alone and in ResNet-50."""

import pytest
import torch
from torchvision.models import resnet50

from cpsam.attention import ATTENTION
from cpsam.insert import insert_attention
from cpsam.measure import count_parameters

BLOCKS = {
    64: {"non_local": 8_352, "simplified_non_local": 4_225},
    128: {
        "non_local": 33_088,
        "simplified_non_local": 16_641,
        "global_context": 2_329,
        "squeeze_excite": 2_184,
    },
    256: {
        "non_local": 131_712,
        "simplified_non_local": 66_049,
        "global_context": 8_753,
        "squeeze_excite": 8_464,
    },
    512: {
        "non_local": 525_568,
        "simplified_non_local": 263_169,
        "global_context": 33_889,
        "squeeze_excite": 33_312,
    },
    1024: {
        "non_local": 2_099_712,
        "simplified_non_local": 1_050_625,
        "global_context": 133_313,
        "squeeze_excite": 132_160,
    },
}


@pytest.mark.parametrize("channels", BLOCKS)
def test_parameters_of_a_block(channels):
    for name, expected in BLOCKS[channels].items():
        arguments = {"norm": "none"} if name == "non_local" else {}
        assert (
            count_parameters(ATTENTION[name](channels, device="meta", **arguments)) == expected
        ), name


@pytest.mark.parametrize("channels", [64, 256])
def test_parameters_as_formulas(channels):
    def count(name, **arguments):
        return count_parameters(ATTENTION[name](channels, device="meta", **arguments))

    assert count("non_local", norm="none") == 2 * channels**2 + 5 * channels // 2
    assert count("non_local") == count("non_local", norm="none") + 2 * channels
    assert count("cbam") == count("squeeze_excite") + 98 + 2
    assert count("danet_channel") == 1
    assert count("conv_control", hidden_channels=23) == 2 * channels * 23 + 2 * channels
    assert [
        count_parameters(ATTENTION["eca"](width)) for width in (1, 3, 8, 64, 128, 256, 512, 2048)
    ] == [1, 1, 3, 3, 5, 5, 5, 7]
    # A dense concatenation has as many parameters as Non-Local; the default has far fewer.
    assert count("cpsam", fusion="concat") > count("non_local") > 2 * count("cpsam")


RESNET50 = [
    ("non_local", {"norm": "none"}, "nl-c4-last", 1, 27_656_744),
    ("non_local", {}, "nl-every-second-c3-c4", 5, 32_915_496),
    ("simplified_non_local", {}, "nl-c4-last", 1, 26_607_657),
    ("global_context", {}, "nl-c4-last", 1, 25_690_345),
    ("global_context", {}, "gc-c3-c5", 13, 28_078_773),
    ("global_context", {"reduction": 4}, "gc-c3-c5", 13, 35_557_941),
    ("squeeze_excite", {}, "every-branch", 16, 28_088_024),
    ("cbam", {}, "every-branch", 16, 28_089_624),
]


@pytest.mark.parametrize(
    "name, arguments, at, places, expected",
    RESNET50,
    ids=[f"{row[0]}-{row[2]}-{row[4]}" for row in RESNET50],
)
def test_parameters_of_resnet50_with_blocks(name, arguments, at, places, expected):
    with torch.device("meta"):
        model = resnet50()
    assert count_parameters(model) == 25_557_032
    touched = insert_attention(
        model, lambda channels: ATTENTION[name](channels, **arguments), at=at
    )
    assert len(touched) == places
    assert count_parameters(model) == expected
