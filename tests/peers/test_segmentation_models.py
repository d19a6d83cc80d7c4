"""Insertion into encoders of segmentation_models_pytorch, alone and inside a U-Net."""

import pytest
import segmentation_models_pytorch as smp
import torch

from cpsam.errors import UserError
from cpsam.insert import attention_parameters, insert_attention, remove_attention
from cpsam.testing import randomise

PLACES = {
    "resnet18": ("layer3.1", ("layer2.0", "layer3.0", "layer4.0")),
    "mobilenet_v2": ("features.13", ("features.2", "features.5", "features.12", "features.16")),
    "efficientnet-b0": ("_blocks.10", ("_blocks.1", "_blocks.3", "_blocks.9", "_blocks.14")),
    "densenet121": (
        "features.denseblock3.denselayer24",
        tuple(
            f"features.denseblock{block}.denselayer{layer}"
            for block, layer in ((2, 11), (3, 23), (4, 15))
        ),
    ),
    "tu-convnext_atto": (
        "model.stages_2.blocks.5",
        ("model.stages_1.blocks.0", "model.stages_2.blocks.4", "model.stages_3.blocks.0"),
    ),
}


def unet(encoder):
    return smp.Unet(encoder, encoder_weights=None, classes=3).eval()


@pytest.mark.parametrize("encoder", PLACES)
def test_names_mean_the_encoder_whether_it_stands_alone_or_in_a_network(encoder):
    model, (last, before) = unet(encoder), PLACES[encoder]
    for at, paths in (("nl-c4-last", [last]), ("before-last", [*before])):
        assert insert_attention(model.encoder, "norm_only", at=at) == paths
        remove_attention(model)
        assert insert_attention(model, "norm_only", at=at) == [f"encoder.{path}" for path in paths]
        remove_attention(model)


@pytest.mark.parametrize("encoder", PLACES)
def test_a_unet_starts_as_it_was_and_hears_its_attention(encoder):
    torch.manual_seed(0)
    model, x = unet(encoder), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        places = [
            path
            for at in ("before-last", "decoder.blocks.1")
            for path in insert_attention(model, "cpsam", at=at)
        ]
        assert torch.equal(model(x), expected)
    model.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in attention_parameters(model))
    remove_attention(model)
    model.eval()
    with torch.no_grad():
        expected = model(x)  # its statistics have moved
        insert_attention(model, "cpsam", at=places)
        for path in places:
            randomise(model.get_submodule(path).attention)
        assert (model(x) - expected).abs().max() > 1e-4 * expected.abs().max()
        assert sorted(remove_attention(model)) == sorted(places)
        assert torch.equal(model(x), expected)


def test_an_encoder_as_a_whole_is_no_place():
    with pytest.raises(
        UserError, match="cannot insert at 'encoder': it returns a list, not one tensor"
    ):
        insert_attention(unet("resnet18"), "cpsam", at="encoder")
