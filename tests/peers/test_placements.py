"""Named placements in networks of other packages: encoders of segmentation models, detectors, a
U-Net of residual blocks.
"""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torchvision.models import detection, segmentation

from cpsam.errors import UserError
from cpsam.insert import insert_attention

BARE = {"weights": None, "weights_backbone": None}


class Residual(nn.Module):
    """Two convolutions beside a projection, as in the residual blocks of DynUNet."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1)
        self.norm1, self.norm2, self.norm3 = (
            nn.InstanceNorm2d(outer, affine=True) for _ in range(3)
        )
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        self.conv3 = nn.Conv2d(inner, outer, 1, stride)
        self.relu = nn.LeakyReLU(0.01)

    def forward(self, x):
        branch = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(branch + self.norm3(self.conv3(x)))


class Up(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inner, outer, 2, 2)
        self.block = Residual(2 * outer, outer, 1)

    def forward(self, x, skip):
        return self.block(torch.cat([self.up(x), skip], 1))


class ResidualUNet(nn.Module):
    """A network of the shape of DynUNet."""

    def __init__(self) -> None:
        super().__init__()
        self.downsamples = nn.ModuleList(
            [Residual(3, 8, 1), Residual(8, 16, 2), Residual(16, 32, 2), Residual(32, 64, 2)]
        )
        self.upsamples = nn.ModuleList([Up(64, 32), Up(32, 16), Up(16, 8)])

    def forward(self, x):
        skips = []
        for block in self.downsamples:
            x = block(x)
            skips.append(x)
        for up, skip in zip(self.upsamples, skips[-2::-1], strict=True):
            x = up(x, skip)
        return x


def unet(encoder):
    return lambda: smp.Unet(encoder, encoder_weights=None)


ROWS = [
    (
        unet("resnet34"),
        "before-last",
        [f"encoder.{path}" for path in ("layer2.2", "layer3.4", "layer4.1")],
    ),
    (unet("xception"), "stage-ends", ["encoder.block2", "encoder.block11", "encoder.block12"]),
    (unet("inceptionresnetv2"), "before-last", ["encoder.repeat_1.18", "encoder.repeat_2.7"]),
    (
        unet("timm-regnetx_002"),
        "stage-ends",
        ["encoder.model.s2.b1", "encoder.model.s3.b4", "encoder.model.s4.b7"],
    ),
    (
        lambda: segmentation.deeplabv3_resnet50(**BARE),
        "before-last",
        ["backbone.layer2.2", "backbone.layer3.4", "backbone.layer4.1"],
    ),
    (lambda: segmentation.fcn_resnet50(**BARE), "nl-c4-last", ["backbone.layer3.5"]),
    (
        lambda: segmentation.lraspp_mobilenet_v3_large(**BARE),
        "stage-ends",
        [f"backbone.{i}" for i in (3, 6, 12, 15)],
    ),
    (
        lambda: detection.fasterrcnn_resnet50_fpn(**BARE).backbone,
        "stage-ends",
        ["body.layer2.3", "body.layer3.5", "body.layer4.2"],
    ),
    (lambda: detection.retinanet_resnet50_fpn(**BARE).backbone, "nl-c4-last", ["body.layer3.5"]),
    (ResidualUNet, "stage-ends", ["downsamples.1", "downsamples.2", "downsamples.3"]),
]


def on_meta(build):
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize("build, at, paths", ROWS)
def test_a_placement_lies_on_the_trunk_of_the_encoder(build, at, paths):
    assert insert_attention(on_meta(build), "norm_only", at=at) == paths


def test_every_branch_finds_all_blocks_and_no_decoder():
    assert insert_attention(on_meta(unet("timm-regnetx_002")), "norm_only", at="every-branch") == [
        f"encoder.model.s{stage}.b{block}.conv3"
        for stage, count in ((1, 1), (2, 1), (3, 4), (4, 7))
        for block in range(1, count + 1)
    ]
    ends = insert_attention(on_meta(unet("inceptionresnetv2")), "norm_only", at="every-branch")
    assert len(ends) == 39
    assert all(path.startswith("encoder.repeat") and path.endswith(".conv2d") for path in ends)


def test_an_encoder_whose_blocks_return_tuples_is_refused():
    with pytest.raises(UserError, match="no class of modules returns what lies on its trunk twice"):
        insert_attention(on_meta(unet("dpn68")), "norm_only", at="every-branch")


def test_a_detector_that_scales_its_images_has_no_output_strides():
    with pytest.raises(UserError, match="scales its images before: insert into its backbone alone"):
        insert_attention(
            on_meta(lambda: detection.fasterrcnn_resnet50_fpn(**BARE)), "norm_only", at="nl-c4-last"
        )
