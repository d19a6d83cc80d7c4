"""Dropout and stochastic depth last as long as a training, and leave nothing behind."""

import pytest
import timm
import torch
import torchvision
from support.tiny import tiny_model, tiny_residual
from torch import nn

from cpsam.errors import UserError
from cpsam.insert import insert_attention
from cpsam.models import cifar_resnet
from cpsam.train.regularise import regularised, residual_branches

HOSTS = {
    "resnet20": lambda: cifar_resnet("resnet20", 10),
    "torchvision/resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "torchvision/convnext_tiny": lambda: torchvision.models.convnext_tiny(num_classes=10),
    "timm/resnet26": lambda: timm.create_model("resnet26", num_classes=10),
    "timm/convnext_atto": lambda: timm.create_model("convnext_atto", num_classes=10),
}
BRANCHES = {
    "resnet20": 9,
    "torchvision/resnet50": 16,
    "torchvision/convnext_tiny": 18,
    "timm/resnet26": 8,
    "timm/convnext_atto": 12,
}


@pytest.mark.parametrize("name", HOSTS)
def test_it_draws_in_training_alone_and_is_gone_afterwards(name: str) -> None:
    model = HOSTS[name]()
    for parameter in model.parameters():  # some norms start at zero
        nn.init.uniform_(parameter, 0.01, 0.3) if parameter.ndim == 1 else None
    x = torch.randn(3, 3, 64, 40)
    keys, plain = model.state_dict().keys(), model.eval()(x)
    assert len(residual_branches(model)) == BRANCHES[name]
    with regularised(model, 10, drop_rate=0.0, drop_path=0.9):
        assert model.state_dict().keys() == keys
        assert torch.equal(model.eval()(x), plain)
        model.train()
        outputs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            outputs.append(model(x))
        torch.testing.assert_close(outputs[0], outputs[1])
        assert not torch.allclose(outputs[0], outputs[2])
    again = HOSTS[name]()
    again.load_state_dict(model.state_dict())
    assert str(model) == str(again)
    state = torch.get_rng_state()
    model.train()(x)
    if name != "torchvision/convnext_tiny":  # it has a little of its own
        assert torch.equal(torch.get_rng_state(), state)


def test_a_branch_that_is_left_out_leaves_its_input_and_the_rates_grow_in_proportion() -> None:
    block = tiny_residual()[1]
    nn.init.ones_(block.bn2.weight)
    with regularised(block, 7, drop_rate=0.0, drop_path=0.5):
        block.train()
        x = torch.rand(2000, 5, 3, 4)
        same = (block(x) == x).all((1, 2, 3)).double().mean()
        assert same == pytest.approx(0.5, abs=0.05)
    model, seen = cifar_resnet("resnet20", 10), []
    model.train()
    with regularised(model, 10, drop_rate=0.0, drop_path=0.8):
        for stage in (model.layer1, model.layer2, model.layer3):
            for block in stage:
                block.bn2.register_forward_hook(
                    lambda module, inputs, output: seen.append(
                        (output == 0).all((1, 2, 3)).double().mean()
                    )
                )
        with torch.no_grad():
            model(torch.randn(600, 3, 4, 4))
    for index, share in enumerate(seen):
        assert float(share) == pytest.approx(0.8 * index / 8, abs=0.07)


def test_attention_in_a_branch_is_left_out_with_it() -> None:
    model = tiny_residual()
    insert_attention(model, "global_context", at="1.bn2")
    nn.init.constant_(model[1].bn2.attention[0].expand.bias, 3.0)
    with regularised(model, 7, drop_rate=0.0, drop_path=0.5):
        model.train()
        block, x = model[3], torch.rand(64, 5, 3, 4)
        assert (block(x) == x).all((1, 2, 3)).any()


def test_dropout_is_before_the_classifier() -> None:
    model, seen = cifar_resnet("resnet20", 10), []
    with regularised(model, 10, drop_rate=0.75, drop_path=0.0):
        model.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        model.train()(torch.randn(300, 3, 4, 4))
    assert ((seen[0] == 0).double().mean()) == pytest.approx(0.75, abs=0.1)


def test_what_is_not_there_is_refused() -> None:
    with (
        pytest.raises(UserError, match="drop_path needs residual branches"),
        regularised(tiny_model(), 7, 0.0, 0.1),
    ):
        pass
    with (
        pytest.raises(UserError, match="drop_rate needs a last layer of 8 outputs"),
        regularised(tiny_model(), 8, 0.1, 0.0),
    ):
        pass
