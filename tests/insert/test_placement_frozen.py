"""Named placements of known networks, written down: a change of these paths moves blocks in
networks that people have trained.
"""

import pytest
import timm
import torch
import torchvision

from cpsam.errors import UserError
from cpsam.insert.placement import resolve
from cpsam.insert.probe import probe

# Of each network: before-last, stage-ends, nl-c4-last, and of every-branch the first and last place
# and their number; "" if refused.
FROZEN = {
    "torchvision/mnasnet1_0": (
        "layers.9.1 layers.11.0 layers.12.3",
        "layers.9.2 layers.11.1 layers.13.0",
        "layers.11.1",
        "layers.8.0.layers.7 layers.13.0.layers.7 16",
    ),
    "torchvision/mobilenet_v3_small": (
        "features.2 features.7 features.10",
        "features.3 features.8 features.11",
        "features.8",
        "features.1.block.2.1 features.11.block.3.1 11",
    ),
    "torchvision/shufflenet_v2_x0_5": (
        "stage3.6 stage4.2",
        "stage3.7 stage4.3",
        "stage3.7",
        "",
    ),
    "torchvision/vgg11": (
        "features.3 features.8 features.13 features.18 features.19",
        "features.4 features.9 features.14 features.19 features.20",
        "features.19",
        "",
    ),
    "timm/resnet26d": (
        "layer2.0 layer3.0 layer4.0",
        "layer2.1 layer3.1 layer4.1",
        "layer3.1",
        "layer1.0.bn3 layer4.1.bn3 8",
    ),
    "timm/resnetv2_50": (
        "stages.1.blocks.2 stages.2.blocks.4 stages.3.blocks.1",
        "stages.1.blocks.3 stages.2.blocks.5 stages.3.blocks.2",
        "stages.2.blocks.5",
        "stages.0.blocks.0.conv3 stages.3.blocks.2.conv3 16",
    ),
    "timm/seresnet50": (
        "layer2.2 layer3.4 layer4.1",
        "layer2.3 layer3.5 layer4.2",
        "layer3.5",
        "layer1.0.se layer4.2.se 16",
    ),
    "timm/mobilenetv3_small_100": (
        "blocks.3.0 blocks.4.1",
        "blocks.3.1 blocks.4.2",
        "blocks.3.1",
        "blocks.1.0.bn3 blocks.4.2.bn3 10",
    ),
    "timm/ghostnet_100": (
        "blocks.1.0 blocks.3.0 blocks.6.3 blocks.8.2",
        "blocks.2.0 blocks.4.0 blocks.6.4 blocks.8.3",
        "blocks.6.4",
        "blocks.0.0.ghost2 blocks.8.3.ghost2 16",
    ),
    "timm/lcnet_100": (
        "blocks.1.0 blocks.2.0 blocks.4.2 blocks.5.0",
        "blocks.1.1 blocks.2.1 blocks.4.3 blocks.5.1",
        "blocks.4.3",
        "",
    ),
    "timm/repvgg_a0": (
        "stages.1.2 stages.2.12 stages.2.13",
        "stages.1.3 stages.2.13 stages.3.0",
        "stages.2.13",
        "stages.0.0.act stages.3.0.act 21",
    ),
    "timm/darknet53": (
        "stages.1.blocks.0 stages.2.blocks.6 stages.3.blocks.6 stages.4.blocks.2",
        "stages.1.blocks.1 stages.2.blocks.7 stages.3.blocks.7 stages.4.blocks.3",
        "stages.3.blocks.7",
        "stages.0.blocks.0.conv2 stages.4.blocks.3.conv2 23",
    ),
    "timm/cspresnet50": (
        "stages.0 stages.1 stages.2",
        "stages.1 stages.2 stages.3",
        "stages.2",
        "stages.0.blocks.0.conv3 stages.3.blocks.1.conv3 13",
    ),
    "timm/ese_vovnet19b_dw": (
        "stages.0.blocks.0 stages.1.blocks.0 stages.2.blocks.0",
        "stages.1.blocks.0 stages.2.blocks.0 stages.3.blocks.0",
        "stages.2.blocks.0",
        "",
    ),
    "timm/hgnetv2_b0": (
        "stages.0.blocks.0 stages.2.blocks.0 stages.2.blocks.1",
        "stages.1.blocks.0 stages.2.blocks.1 stages.3.blocks.0",
        "stages.2.blocks.1",
        "stages.0.blocks.0.aggregation.1 stages.3.blocks.0.aggregation.1 5",
    ),
    "timm/starnet_s1": (
        "stages.1.1 stages.2.7 stages.3.2",
        "stages.1.2 stages.2.8 stages.3.3",
        "stages.2.8",
        "stages.0.1.dwconv2.conv stages.3.3.dwconv2.conv 15",
    ),
    "timm/poolformer_s12": (
        "stages.1.blocks.0 stages.2.blocks.4 stages.3.blocks.0",
        "stages.1.blocks.1 stages.2.blocks.5 stages.3.blocks.1",
        "stages.2.blocks.5",
        "stages.0.blocks.0.layer_scale1 stages.3.blocks.1.layer_scale2 24",
    ),
    "timm/gernet_s": (
        "stages.1.1 stages.2.5 stages.3.1",
        "stages.1.2 stages.2.6 stages.4.0",
        "stages.2.6",
        "stages.0.0.conv2_kxk stages.4.0.conv3_1x1 14",
    ),
    "timm/rdnet_tiny": (
        "dense_stages.1.2.dense_block1 dense_stages.5.2.dense_block1 dense_stages.6.2.dense_block1",
        "dense_stages.1.2.dense_block2 dense_stages.5.2.dense_block2 dense_stages.6.2.dense_block2",
        "dense_stages.5.2.dense_block2",
        "",
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_known_network_keeps_its_places(name):
    library, _, model = name.partition("/")
    with torch.device("meta"):
        network = (
            timm.create_model(model)
            if library == "timm"
            else torchvision.models.get_model(model, weights=None)
        )
    seen = probe(network)
    found = []
    for at in ("before-last", "stage-ends", "nl-c4-last", "every-branch"):
        try:
            places = resolve(network, at, seen)
        except UserError:
            places = []
        if at == "every-branch" and places:
            places = [places[0], places[-1], str(len(places))]
        found.append(" ".join(places))
    assert tuple(found) == FROZEN[name]
