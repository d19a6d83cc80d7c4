"""The trunk of home-made networks: decoders, necks, gates, padding, dilation, and what a forward
may take.
"""

from itertools import pairwise

import pytest
import torch
from support.branches import ConvNorm, Residual, ends
from torch import nn
from torch.nn import functional

from cpsam.errors import UserError
from cpsam.insert import insert_attention
from cpsam.insert.placement import resolve
from cpsam.insert.probe import probe


class Encoder(nn.Module):
    """Two blocks per stage at strides 2, 4 and 8."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        widths = (8, 16, 24, 32)
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(inputs, outputs, 2), Residual(outputs, outputs))
            for inputs, outputs in pairwise(widths)
        )

    def features(self, x):
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x):
        return self.features(x)[-1]


class UNet(Encoder):
    """Long skips by concatenation into blocks of the encoder's class."""

    def __init__(self):
        super().__init__()
        self.up = nn.ModuleList([Residual(56, 56), Residual(72, 72)])

    def forward(self, x):
        first, second, x = self.features(x)
        for skip, block in zip((second, first), self.up, strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skip], 1))
        return x


class Hourglass(Encoder):
    """Down, and up again by additions."""

    def __init__(self):
        super().__init__()
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(32, 24, 2, 2), nn.ConvTranspose2d(24, 16, 2, 2)]
        )
        self.blocks = nn.ModuleList([Residual(24, 24), Residual(16, 16)])

    def forward(self, x):
        first, second, x = self.features(x)
        for skip, up, block in zip((second, first), self.up, self.blocks, strict=True):
            x = block(up(x) + skip)
        return x


class FPN(Encoder):
    """Several outputs, lateral convolutions, and blocks after the fusion."""

    def __init__(self):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, 16, 1) for width in (16, 24, 32))
        self.head = nn.ModuleList(Residual(16, 16) for _ in range(3))

    def forward(self, x):
        maps = [
            lateral(feature)
            for lateral, feature in zip(self.lateral, self.features(x), strict=True)
        ]
        for index in (1, 0):
            maps[index] = maps[index] + functional.interpolate(maps[index + 1], scale_factor=2)
        return {
            str(index): head(feature)
            for index, (head, feature) in enumerate(zip(self.head, maps, strict=True))
        }


class Gated(Encoder):
    """Gates: x * sigmoid(x), one gate per channel, and a gate computed at half the resolution."""

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x * x.sigmoid())
            x = x * x.mean((2, 3), keepdim=True).sigmoid()
            x = x * functional.interpolate(functional.avg_pool2d(x, 2).sigmoid(), scale_factor=2)
        return x


class Padded(Encoder):
    """A border that makes the deepest map as large as an earlier one."""

    def forward(self, x):
        return functional.pad(super().forward(x), (8, 8, 8, 8)).mean((2, 3))


class InPlace(Encoder):
    """Operations that write what they read, also through a view."""

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x).relu_()
            x[:, :4].mul_(2)
            x += 1
        return x


class Named(Encoder):
    """Blocks in an nn.ModuleDict."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleDict({"first": stage[0], "second": stage[1]}) for stage in self.stages
        )

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage["second"](stage["first"](x))
        return x


ENCODER = {
    "before-last": ["stages.1.0", "stages.2.0"],
    "stage-ends": ["stages.1.1", "stages.2.1"],
    "every-branch": [f"stages.{stage}.{block}.second" for stage in (0, 1, 2) for block in (0, 1)],
}


@pytest.mark.parametrize("kind", [Encoder, UNet, Hourglass, FPN, Gated, Padded, InPlace])
def test_what_surrounds_an_encoder_changes_none_of_its_places(kind):
    model, found = kind(), {}
    seen = probe(model)
    assert not seen.failure
    for at in ENCODER:
        found[at] = resolve(model, at, seen)
    assert found == ENCODER


def test_blocks_may_lie_in_a_module_dict():
    assert ends(Named(), "stage-ends") == ["stages.1.second", "stages.2.second"]


def test_where_dilation_replaces_a_stride_a_stage_begins():
    model = Encoder()
    for module in model.stages[2].modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
    assert ends(model, "stage-ends") == ENCODER["stage-ends"]


def test_a_network_of_functions_alone_has_no_blocks():
    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList(torch.zeros(8, width, 3, 3) for width in (3, 8, 8))

        def forward(self, x):
            for weight in self.weights:
                x = functional.conv2d(x, weight, stride=2, padding=1).relu()
            return x

    model = Functions()
    seen = probe(model, torch.zeros(1, 3, 64, 96))
    with pytest.raises(UserError, match="no class of modules returns what lies on its trunk twice"):
        resolve(model, "before-last", seen)


class Two(Encoder):
    """Takes images and a number per image."""

    def forward(self, image, scale):
        return super().forward(image) * scale[:, None, None, None]


@pytest.mark.parametrize(
    "pack", [tuple, list, lambda pair: dict(zip(("image", "scale"), pair, strict=True))]
)
def test_an_example_may_be_all_arguments_of_the_forward(pack):
    model = Two()
    with pytest.raises(
        UserError, match=r"the forward of the model stopped early: TypeError.*pass example_input"
    ):
        insert_attention(model, "cpsam", at=("before-last", "stages.2.1"))
    example = pack([torch.zeros(2, 3, 64, 96), torch.ones(2)])
    assert (
        insert_attention(model, "cpsam", at="before-last", example_input=example)
        == ENCODER["before-last"]
    )


class Folded(Encoder):
    """Folds 2x2 pixels into channels before the first convolution, as YOLOX and TResNet do."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3, padding=1))


class HeadFirst(Encoder):
    """Makes a module before the one that reads the images."""

    def __init__(self):
        super().__init__()
        stem, stages = self.stem, self.stages
        del self.stem, self.stages
        self.head, self.stem, self.stages = nn.Conv2d(32, 5, 1), stem, stages

    def forward(self, x):
        return self.head(super().forward(x))


@pytest.mark.parametrize("build", [Folded, HeadFirst])
def test_the_first_convolution_need_not_read_the_images(build):
    assert insert_attention(build(), "cpsam", at="before-last") == ENCODER["before-last"]


def test_images_that_no_convolution_can_read_are_named_by_the_first_error():
    class Refuses(Folded):
        def forward(self, x):
            raise ValueError(f"{x.shape[1]} channels")

    with pytest.raises(
        UserError, match=r"stopped early: ValueError: 12 channels; pass example_input"
    ):
        insert_attention(Refuses(), "cpsam", at="before-last")


@pytest.mark.parametrize(
    "build, shape",
    [
        (nn.Conv1d, None),
        (nn.Conv3d, None),
        (nn.Conv1d, (1, 3, 64)),
        (nn.Conv3d, (1, 3, 16, 16, 16)),
    ],
)
def test_attention_is_for_2d_networks(build, shape):
    with pytest.raises(UserError, match="2-D networks only"):
        insert_attention(
            nn.Sequential(build(3, 4, 3)),
            "cpsam",
            at="0",
            example_input=None if shape is None else torch.zeros(shape),
        )


def test_the_probe_does_not_run_the_hooks_of_the_host():
    model, calls = Encoder(), []
    model.stages[1].register_forward_hook(lambda *_: calls.append(1))
    model.stem.register_forward_pre_hook(lambda *_: calls.append(1))
    assert ends(model, "before-last") == ENCODER["before-last"]
    assert calls == []
    model(torch.zeros(1, 3, 32, 32))
    assert calls == [1, 1]


def test_a_shortcut_is_never_a_place():
    """Even where it is the only repeated class."""
    model = nn.Sequential(
        ConvNorm(3, 8), Residual(8, 16, 2), Residual(16, 32, 2), Residual(32, 64, 2)
    )
    assert ends(model, ("before-last", "every-branch")) == [
        "1",
        "1.second",
        "2",
        "2.second",
        "3.second",
    ]
