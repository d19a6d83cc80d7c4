"""Placements and insertion in the convolutional networks of transformers."""

import pytest
import torch
from transformers import (
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from cpsam.insert import attention_parameters, insert_attention, remove_attention
from cpsam.testing import randomise

SHAPE = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 64], "depths": [2, 2, 2, 2]}


def resnet(layer):
    return ResNetForImageClassification(ResNetConfig(**SHAPE, layer_type=layer)).eval()


def regnet(layer):
    return RegNetForImageClassification(
        RegNetConfig(**SHAPE, groups_width=8, layer_type=layer)
    ).eval()


# By name: what a block is called, and the last layer of its branch.
HOSTS = {
    "resnet basic": (lambda: resnet("basic"), "resnet.encoder.stages.{}.layers.{}", ".layer.1"),
    "resnet bottleneck": (
        lambda: resnet("bottleneck"),
        "resnet.encoder.stages.{}.layers.{}",
        ".layer.2",
    ),
    "regnet x": (lambda: regnet("x"), "regnet.encoder.stages.{}.layers.{}", ".layer.2"),
    "regnet y": (lambda: regnet("y"), "regnet.encoder.stages.{}.layers.{}", ".layer.3"),
}


@pytest.mark.parametrize("name", HOSTS)
def test_names_mean_the_same_as_in_other_networks(name):
    build, block, last = HOSTS[name]
    model = build()
    meanings = {
        "before-last": [block.format(stage, 0) for stage in (1, 2, 3)],
        "stage-ends": [block.format(stage, 1) for stage in (1, 2, 3)],
        "every-branch": [
            block.format(stage, layer) + last for stage in range(4) for layer in (0, 1)
        ],
    }
    for at, paths in meanings.items():
        assert insert_attention(model, "norm_only", at=at) == paths, at
        remove_attention(model)


@pytest.mark.parametrize("name", HOSTS)
def test_attention_is_heard_and_trained(name):
    torch.manual_seed(0)
    model, x = HOSTS[name][0](), torch.randn(2, 3, 64, 96)
    bare = model(x).logits
    places = insert_attention(model, "cpsam", at="before-last")
    assert torch.equal(model(x).logits, bare)
    for path in places:
        randomise(model.get_submodule(path).attention)
    assert not torch.allclose(model(x).logits, bare)
    model.train()(pixel_values=x).logits.square().sum().backward()
    assert all(p.grad is not None for p in attention_parameters(model))
