"""Named placements and path patterns, host by host."""

import pytest
import timm
import torch
from support.hosts import HOSTS, snapshot
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50, squeezenet1_1, swin_t, vit_b_16

from cpsam.errors import UserError
from cpsam.insert import PLACEMENTS, insert_attention, remove_attention
from cpsam.insert.placement import matches, resolve
from cpsam.insert.probe import probe
from cpsam.models.cifar_resnet import cifar_resnet


def on_meta(build):
    with torch.device("meta"):
        return build()


def blocks(stages, norm=""):
    return [f"layer{stage}.{block}{norm}" for stage, count in stages for block in range(count)]


RESNET50 = {
    "nl-c4-last": ["layer3.5"],
    "nl-every-second-c3-c4": ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"],
    "gc-c3-c5": blocks([(2, 4), (3, 6), (4, 3)], ".bn3"),
    "before-last": ["layer2.2", "layer3.4", "layer4.1"],
    "stage-ends": ["layer2.3", "layer3.5", "layer4.2"],
    "early": ["layer1.2", "layer2.3"],
    "every-branch": blocks([(1, 3), (2, 4), (3, 6), (4, 3)], ".bn3"),
}
RESNET34 = {
    "nl-c4-last": ["layer3.5"],
    "gc-c3-c5": blocks([(2, 4), (3, 6), (4, 3)], ".bn2"),
    "before-last": ["layer2.2", "layer3.4", "layer4.1"],
}
RESNET20 = {
    "before-last": ["layer2.1", "layer3.1"],
    "stage-ends": ["layer2.2", "layer3.2"],
    "early": ["layer1.2", "layer2.2"],
    "every-branch": blocks([(1, 3), (2, 3), (3, 3)], ".bn2"),
}
CIFAR_RESNET18 = {
    "before-last": ["layer2.0", "layer3.0", "layer4.0"],
    "stage-ends": ["layer2.1", "layer3.1", "layer4.1"],
}
MOBILENET_V2 = {
    "nl-c4-last": ["features.13"],
    "early": ["features.1", "features.3"],
    "every-branch": ["features.1.conv.2", *(f"features.{i}.conv.3" for i in range(2, 18))],
}
TIMM_RESNET18 = {
    "every-branch": blocks([(1, 2), (2, 2), (3, 2), (4, 2)], ".bn2"),
    "nl-c4-last": ["layer3.1"],
}
CONVNEXT_ATTO = {
    "nl-c4-last": ["stages.2.blocks.5"],
    "stage-ends": ["stages.1.blocks.1", "stages.2.blocks.5", "stages.3.blocks.1"],
}
DENSENET121 = {"nl-c4-last": ["features.denseblock3.denselayer24"]}
VGG16 = {
    "early": ["features.5", "features.12"],
    "stage-ends": [f"features.{i}" for i in (12, 22, 32, 42, 43)],
}

NETWORKS = {
    "resnet50": (resnet50, RESNET50),
    "resnet34": (resnet34, RESNET34),
    "resnet20": (lambda: cifar_resnet("resnet20", 10), RESNET20),
    "resnet20-projection": (lambda: cifar_resnet("resnet20", 10, shortcut="projection"), RESNET20),
    "cifar-resnet18": (lambda: cifar_resnet("resnet18", 10), CIFAR_RESNET18),
    "mobilenet_v2": (HOSTS["mobilenet_v2"].make, MOBILENET_V2),
    "timm/resnet18": (lambda: timm.create_model("resnet18"), TIMM_RESNET18),
    "timm/convnext_atto": (lambda: timm.create_model("convnext_atto"), CONVNEXT_ATTO),
    "densenet121": (HOSTS["densenet121"].make, DENSENET121),
    "vgg16_bn": (HOSTS["vgg16_bn"].make, VGG16),
}
EXPECTED = [
    (name, at, paths)
    for name, (_, placements) in NETWORKS.items()
    for at, paths in placements.items()
]


@pytest.fixture(scope="module")
def networks():
    return {name: on_meta(build) for name, (build, _) in NETWORKS.items()}


@pytest.mark.parametrize(
    "name, at, paths", EXPECTED, ids=[f"{name}-{at}" for name, at, _ in EXPECTED]
)
def test_a_named_placement_by_name(networks, name, at, paths):
    model = networks[name]
    assert insert_attention(model, "norm_only", at=at) == paths
    assert remove_attention(model) == paths


def test_every_placement_is_tried():
    assert {at for _, at, _ in EXPECTED} == set(PLACEMENTS)


@pytest.mark.parametrize(
    "build, at, message",
    [
        (
            lambda: cifar_resnet("resnet20", 10),
            "nl-c4-last",
            "'nl-c4-last' needs blocks at output stride 16; .* stride 1, 2, 4$",
        ),
        (
            lambda: cifar_resnet("resnet20", 10),
            "gc-c3-c5",
            "needs blocks at output stride 8, 16, 32; .* 1, 2, 4$",
        ),
        (
            lambda: cifar_resnet("resnet18", 10),
            "nl-every-second-c3-c4",
            "needs blocks at output stride 16; .* 1, 2, 4, 8$",
        ),
        (
            squeezenet1_1,
            "every-branch",
            "finds no branch in 'features.3': it adds nothing .* by concatenation alone",
        ),
        (
            swin_t,
            "before-last",
            r"'before-last' cannot insert at 'features\.1\.0': its channels are the last axis",
        ),
        (
            swin_t,
            "every-branch",
            r"'every-branch' cannot insert at 'features\.1\.0': its channels are the last axis",
        ),
        (
            swin_t,
            "nl-c4-last",
            r"'nl-c4-last' cannot insert at 'features\.1\.0': its channels are the last axis",
        ),
        (
            vit_b_16,
            "before-last",
            (
                "'before-last' finds no trunk: the forward of the model stopped early:"
                " AssertionError: Wrong image height"
            ),
        ),
        (
            lambda: timm.create_model("resnet10t"),
            "nl-every-second-c3-c4",
            "finds no place, because the stages that it means have one block",
        ),
        (
            lambda: timm.create_model("hrnet_w18_small"),
            "before-last",
            "finds no trunk: this model keeps several resolutions side by side",
        ),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "early", "at least two stages"),
    ],
)
def test_a_placement_that_a_network_does_not_have_is_refused(build, at, message):
    model = on_meta(build)
    before = snapshot(model)
    with pytest.raises(UserError, match=message):
        insert_attention(model, "cpsam", at=at)
    assert snapshot(model) == before


class WithDecoder(nn.Module):
    """A network of stages down to stride 8, and up again."""

    def __init__(self):
        super().__init__()
        self.encoder = cifar_resnet("resnet18", 10)
        self.encoder.fc = nn.Identity()
        self.decoder = nn.Sequential(*(Up(channels) for channels in (512, 256, 128)))

    def forward(self, x):
        stem = self.encoder.relu(self.encoder.bn1(self.encoder.conv1(x)))
        return self.decoder(
            self.encoder.layer4(self.encoder.layer3(self.encoder.layer2(self.encoder.layer1(stem))))
        )


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = (
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.BatchNorm2d(channels // 2),
        )

    def forward(self, x):
        return nn.functional.interpolate(self.norm(self.conv(x)).relu(), scale_factor=2)


def test_names_mean_no_block_of_a_decoder():
    """Where it comes back to a stride it would be the last stage there."""
    model, bare = on_meta(WithDecoder), on_meta(lambda: cifar_resnet("resnet18", 10))
    for at in ("before-last", "stage-ends", "early", "every-branch"):
        assert insert_attention(model, "norm_only", at=at) == [
            f"encoder.{path}" for path in insert_attention(bare, "norm_only", at=at)
        ]
        remove_attention(model), remove_attention(bare)
    assert insert_attention(model, "norm_only", at="decoder.*") == [
        "decoder.0",
        "decoder.1",
        "decoder.2",
    ]


def all_placements(model):
    seen, found = probe(model), {}
    for at in PLACEMENTS:
        try:
            found[at] = resolve(model, at, seen)
        except UserError as error:
            found[at] = str(error)
    return found


class LooksLikeAHost(nn.Module):
    """A block with repeated modules, norms and convolutions that could be mistaken for the
    host's.
    """

    def __init__(self, channels):
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
                for _ in range(3)
            )
        )
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(x + self.blocks(x))


@pytest.mark.parametrize(
    "name",
    ["resnet50", "resnet20", "vgg16_bn", "densenet121", "mobilenet_v2", "timm/convnext_atto"],
)
def test_a_later_placement_is_not_confused_by_what_was_inserted(networks, name):
    """Neither by inserted norms, nor by a place that has modules inside now."""
    model = networks[name]
    expected = all_placements(model)
    for block, at in (
        (LooksLikeAHost, "stage-ends"),
        ("bam", "early"),
        ("global_context", "every-branch"),
    ):
        if isinstance(expected[at], list):
            insert_attention(model, block, at=expected[at])
    assert all_placements(model) == expected
    remove_attention(model)


@pytest.mark.parametrize(
    "pattern, path, expected",
    [
        ("layer3.*", "layer3.0", True),
        ("layer3.*", "layer3.10", True),
        ("layer3.*", "layer3", False),
        ("layer3.*", "layer3.0.conv1", False),
        ("layer3.*.conv1", "layer3.0.conv1", True),
        ("*", "layer3", True),
        ("*", "layer3.0", False),
        ("*.*.bn2", "layer3.0.bn2", True),
        ("layer*.0", "layer3.0", True),
        ("layer?.0", "layer3.0", True),
        ("layer[12].0", "layer3.0", False),
        ("Layer3", "layer3", False),
        ("ayer3", "layer3", False),
        ("block1-0", "block1-0", True),
    ],
)
def test_a_star_is_one_segment(pattern, path, expected):
    assert matches(pattern, path) is expected


def test_overlapping_patterns_touch_a_place_once_and_in_the_order_of_the_model():
    model = on_meta(resnet18)
    at = ["layer4.1", "layer3.*", "layer3.1", "layer3", "nl-c4-last", "layer1.0.*2"]
    assert insert_attention(model, "cpsam", at=at) == [
        "layer1.0.conv2",
        "layer1.0.bn2",
        "layer3.0",
        "layer3.1",
        "layer4.1",
    ]
    assert [len(model.get_submodule(path).attention) for path in ("layer3.0", "layer3.1")] == [1, 1]


def test_a_sequential_stands_for_its_last_element_however_deep():
    model = on_meta(resnet50)
    assert insert_attention(model, "cpsam", at=("layer2", "layer1.0.downsample")) == [
        "layer1.0.downsample.1",
        "layer2.3",
    ]
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    )
    assert insert_attention(model, "cpsam", at="1") == ["1.1.1"]
    with pytest.raises(UserError, match=r"'1' *.*empty Sequential|empty Sequential"):
        insert_attention(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential()), "cpsam", at="1")


def test_a_sequential_with_a_forward_of_its_own_is_a_place_itself():
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + self[1](self[0](x))

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Residual(nn.Conv2d(4, 4, 1), nn.ReLU()))
    x = torch.randn(2, 3, 6, 9)
    expected = model(x)
    assert insert_attention(model, "cpsam", at="1") == ["1"]
    assert torch.equal(model(x), expected)


def test_a_pattern_that_finds_nothing_says_what_there_is():
    model = on_meta(resnet18)
    with pytest.raises(
        UserError,
        match=r"unknown place 'layr3': did you mean 'layer3'\? Choices: .*before-last.*layer4",
    ):
        insert_attention(model, "cpsam", at="layr3")
    with pytest.raises(UserError, match=r"unknown place 'layer3\.7': did you mean 'layer3\.1'"):
        insert_attention(model, "cpsam", at=["layer3.0", "layer3.7"])
    with pytest.raises(UserError, match="unknown place 'befor-last': did you mean 'before-last'"):
        insert_attention(model, "cpsam", at="befor-last")
    with pytest.raises(UserError, match="`at` is empty"):
        insert_attention(model, "cpsam", at=())


def test_what_was_inserted_is_no_place():
    model = on_meta(resnet18)
    insert_attention(model, "cpsam", at="layer3.0")
    for at in ("layer3.0.attention", "layer3.0.attention.0", "layer3.0.attention.0.fuse"):
        with pytest.raises(UserError, match="unknown place"):
            insert_attention(model, "eca", at=at)
    assert "layer3.0.attention.0" not in insert_attention(model, "eca", at="*.*")
