"""LoRA of peft takes effect on a layer of a block and on a place, before and after it is merged."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from cpsam.attention import CPSAM, NonLocal
from cpsam.insert import attention_config, insert_attention
from cpsam.models.cifar_resnet import ThinResNet
from cpsam.testing import randomise


def with_lora(model, target):
    return get_peft_model(
        model, LoraConfig(r=16, target_modules=[target], init_lora_weights=False)
    ).eval()


def effects(model, target, x):
    """How far LoRA moves the output, how far merging moves it again, and the size of the output."""
    before = model(x)
    lora = with_lora(model, target)
    moved = lora(x)
    merged = copy.deepcopy(lora).merge_and_unload()(x)
    return (moved - before).abs().max(), (merged - moved).abs().max(), lora


LAYERS = [
    (lambda: NonLocal(16), "proj"),
    (lambda: NonLocal(16), "query"),
    (lambda: CPSAM(16), "channel_squeeze.key"),
    (lambda: CPSAM(16, fusion="sum"), "fuse.conv"),
]


@pytest.mark.parametrize(
    "make, target", LAYERS, ids=lambda value: value if isinstance(value, str) else ""
)
@torch.no_grad()
def test_lora_on_a_layer_of_a_block_takes_effect(make, target):
    torch.manual_seed(0)
    moved, merged, _ = effects(
        nn.Sequential(randomise(make())).eval(), target, torch.randn(2, 16, 9, 7)
    )
    assert moved > 1e-3 and merged < 1e-4 * moved


@pytest.mark.parametrize("target", ["layer2.1.conv2", "layer2.1.conv1"])
def test_lora_on_a_host_keeps_every_block(target):
    torch.manual_seed(0)
    model, x = ThinResNet(2, 5).eval(), torch.randn(2, 3, 13, 17)
    places = insert_attention(model, "cpsam", at=("layer1.1.conv2", "layer2.1.conv2", "layer2.1"))
    for path in places:
        randomise(model.get_submodule(path).attention)
    config = attention_config(model)
    with torch.no_grad():
        moved, merged, lora = effects(model, target, x)
    assert moved > 1e-3 and merged < 1e-3 * moved
    assert [entry["attention"] for entry in attention_config(lora)] == ["cpsam"] * len(places)
    assert attention_config(lora.merge_and_unload()) == config
