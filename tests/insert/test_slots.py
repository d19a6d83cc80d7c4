"""Blocks stay in the slot of a place, whoever puts another module there; where they cannot, an
error says so.
"""

import copy
import io
import pickle

import pytest
import timm
import torch
from torch import nn
from torch.ao import quantization
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import parametrizations, parametrize, prune
from torchvision.models.feature_extraction import create_feature_extractor

from cpsam.errors import UserError
from cpsam.insert import (
    attention_config,
    attention_parameters,
    insert_attention,
    insert_from_config,
    remove_attention,
)
from cpsam.insert.slots import Slots
from cpsam.models.cifar_resnet import ThinResNet
from cpsam.testing import randomise


def host(at=("1",), block="squeeze_excite"):
    """A host whose blocks are heard, images, and what it makes of them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
    ).eval()
    randomise(model)
    insert_attention(model, block, at=at)
    for path in at:
        randomise(model.get_submodule(path).attention)
    x = torch.randn(2, 3, 13, 17)
    return model, x, model(x).detach()


def paths(model):
    return [entry["at"] for entry in attention_config(model)]


class Wrapper(nn.Module):
    """Adds to what a layer returns, as LoRA does."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.base_layer(x) + self.weight


@pytest.mark.parametrize(
    "wrap",
    [Wrapper, lambda place: Wrapper(copy.deepcopy(place)), nn.Sequential],
    ids=["itself", "a copy", "Sequential"],
)
def test_a_wrapper_has_the_blocks_inside_and_not_twice(wrap):
    model, x, expected = host(("3",))
    place = model[3]
    model[3] = wrap(place)
    assert torch.equal(model(x), expected)
    assert paths(model) in (["3.base_layer"], ["3.0"])
    model[3] = place  # unwrapped
    assert torch.equal(model(x), expected) and paths(model) == ["3"]


class Merging(Wrapper):
    """Adds to what a layer returns, and can add the same to its weights."""

    def merge(self):
        with torch.no_grad():
            self.base_layer.bias += self.weight
        return self.base_layer


def test_the_blocks_come_after_what_an_adapter_adds_so_that_merging_moves_nothing():
    model, x, expected = host(("3",))
    model[3] = Merging(model[3])
    assert torch.equal(model(x), expected) and paths(model) == ["3"]
    nn.init.ones_(model[3].weight)
    moved = model(x)
    assert not torch.allclose(moved, expected)
    model[3] = model[3].merge()
    torch.testing.assert_close(model(x), moved)
    assert paths(model) == ["3"] and remove_attention(model) == ["3"]


class Copies(nn.Module):
    """Keeps the old blocks beside those that it trains, as `modules_to_save` of peft does."""

    def __init__(self, blocks):
        super().__init__()
        self.original, self.copy = blocks, copy.deepcopy(blocks)

    def forward(self, x):
        return self.copy(x)


def test_blocks_that_are_wrapped_are_found_and_several_copies_are_refused():
    model, x, expected = host()
    model[1].attention = Wrapper(model[1].attention)
    assert torch.equal(model(x), expected) and paths(model) == ["1"]
    assert all(p.requires_grad for p in attention_parameters(model))
    model[1].attention = Copies(model[1].attention.base_layer)
    assert torch.equal(model(x), expected)
    for ask in (attention_config, lambda model: list(attention_parameters(model))):
        with pytest.raises(
            UserError,
            match=(
                "cannot tell which attention counts: Copies holds 2 copies of it; unwrap it first"
            ),
        ):
            ask(model)
    assert remove_attention(model) == ["1"] and not hasattr(model[1], "attention")


def test_a_module_that_is_taken_out_for_a_while_gets_its_blocks_back():
    model, x, expected = host()
    norm = model[1]
    model[1] = nn.Identity()
    assert paths(model) == ["1"] and not torch.allclose(model(x), expected)
    model[1] = norm
    assert paths(model) == ["1"] and torch.equal(model(x), expected)


def test_a_new_layer_in_the_slot_of_a_place_gets_the_blocks_and_one_of_another_width_fails_loudly():
    model, x, _ = host(("3",))
    model[3] = nn.Conv2d(8, 6, 1)
    assert paths(model) == ["3"] and model(x).shape[1] == 6
    model[3] = nn.Conv2d(8, 7, 1)
    with pytest.raises(RuntimeError):
        model[:4](x)


def test_layers_can_be_put_before_a_place():
    model, x, expected = host()
    model.insert(0, nn.Identity())
    model.append(nn.Identity())
    assert torch.equal(model(x), expected) and paths(model) == ["2"]


@pytest.mark.parametrize(
    "take",
    [
        lambda m: m.__delitem__(1),
        lambda m: m.pop(1),
        lambda m: setattr(m, "1", None),
        lambda m: m._modules.pop("1"),
        lambda m: delattr(m, "1"),
    ],
)
def test_a_place_that_is_deleted_is_refused_and_stays(take):
    model, x, expected = host()
    with pytest.raises(
        UserError,
        match="cannot take '1' away: attention is inserted there; call remove_attention first",
    ):
        take(model)
    assert torch.equal(model(x), expected) and paths(model) == ["1"]


def test_a_place_with_a_child_of_its_own_by_the_name_is_refused():
    model, _, _ = host()
    layer = nn.Identity()
    layer.attention = nn.Identity()
    with pytest.raises(
        UserError,
        match="cannot put Identity in the slot of '1': it has an attribute 'attention' of its own",
    ):
        model[1] = layer


def test_parents_that_are_made_later_around_a_place_keep_its_blocks():
    model, x, expected = host()
    again = nn.Sequential(*model.children())
    del again[2]
    again.insert(2, nn.ReLU())
    again = nn.SyncBatchNorm.convert_sync_batchnorm(again).eval()
    assert paths(again) == ["1"]
    torch.testing.assert_close(again(x), expected)


def test_a_block_between_a_convolution_and_its_norm_is_not_folded_away():
    model, x, expected = host(("0",))
    torch.testing.assert_close(fuse(copy.deepcopy(model))(x), expected)
    assert paths(fuse(copy.deepcopy(model))) == ["0"]
    for names in (["0", "1"], ["0", "1", "2"]):
        with pytest.raises(
            UserError,
            match="cannot fuse Conv2dPlace with what follows it: attention stands between",
        ):
            quantization.fuse_modules(model, names)


def test_a_place_has_its_own_class_back_and_its_parent_a_plain_dict():
    model, _, _ = host(("0", "1"))
    assert (
        isinstance(model[1], nn.BatchNorm2d)
        and type(model[1]) is not nn.BatchNorm2d
        and type(model._modules) is Slots
    )
    assert repr(model[1]).startswith("BatchNorm2dPlace(\n  8, eps=1e-05")
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert [type(layer) for layer in copied] == [type(layer) for layer in model] and type(
            copied._modules
        ) is Slots
    remove_attention(model)
    assert (
        type(model[0]) is nn.Conv2d
        and type(model[1]) is nn.BatchNorm2d
        and type(model._modules) is dict
    )


def test_whole_models_are_saved_and_loaded():
    model, x, expected = host()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), expected)


def test_weights_of_a_place_can_be_parametrised_and_pruned():
    model, x, expected = host(("0",))
    parametrizations.weight_norm(model[0])
    prune.l1_unstructured(model[3], "weight", 0.0)
    torch.testing.assert_close(model(x), expected)
    parametrize.remove_parametrizations(model[0], "weight")
    torch.testing.assert_close(model(x), expected)
    assert paths(model) == ["0"]


def test_a_configuration_of_a_norm_fits_the_module_that_replaced_it():
    model, x, _ = host()
    bare = nn.SyncBatchNorm.convert_sync_batchnorm(remove_attention(model) and model).eval()
    assert type(bare[1]) is nn.SyncBatchNorm
    source, _, expected = host()
    assert insert_from_config(bare, attention_config(source)) == ["1"]
    bare.load_state_dict(source.state_dict())
    torch.testing.assert_close(bare(x), expected)


def test_features_by_graph_and_interpreter_come_after_attention():
    torch.manual_seed(0)
    model, x = ThinResNet(2, 5).eval(), torch.randn(2, 3, 13, 17)
    insert_attention(model, "squeeze_excite", at=("layer1.1.bn2", "layer2.1"))
    seen = {}
    handle = model.layer2[1].register_forward_hook(lambda *args: seen.update(y=args[2]))
    expected = model(x)
    handle.remove()
    features = create_feature_extractor(model, ["layer2.1", "fc"])
    assert torch.equal(features(x)["layer2.1"], seen["y"]) and torch.equal(
        features(x)["fc"], expected
    )
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(torch.fx.Interpreter(traced).run(x), expected)
    assert attention_config(pickle.loads(pickle.dumps(traced))) == attention_config(model)  # noqa: S301


def test_a_network_that_is_traced_again_still_knows_its_blocks():
    torch.manual_seed(0)
    model, x = ThinResNet(2, 5).eval(), torch.randn(2, 3, 13, 17)
    places = insert_attention(model, "cpsam", at=("layer1.1.bn2", "layer2.1"))
    for path in places:
        randomise(model.get_submodule(path).attention)
    expected, again = model(x), torch.fx.symbolic_trace(torch.fx.symbolic_trace(model))
    assert torch.equal(again(x), expected) and attention_config(again) == attention_config(model)
    fused = fuse(torch.fx.symbolic_trace(model))
    torch.testing.assert_close(fused(x), expected)
    assert paths(fused) == places


def test_blocks_that_a_tool_moved_away_from_their_place_do_not_pass_for_none():
    model, _, _ = host()
    # torch.fx.passes.split_module puts them into such a slot of their own.
    moved = nn.Sequential(model[0], model[1].attention)
    for ask in (
        attention_config,
        remove_attention,
        lambda model: list(attention_parameters(model)),
    ):
        with pytest.raises(
            UserError,
            match="cannot tell where the attention at '1' belongs: ask the model as it was before",
        ):
            ask(moved)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_model_does_not_pass_for_a_bare_one():
    model, x, expected = host()
    for scripted in (
        torch.jit.script(model),
        torch.jit.trace(model, x),
        nn.Sequential(torch.jit.script(model)),
    ):
        torch.testing.assert_close(scripted(x), expected)
        for ask in (
            attention_config,
            remove_attention,
            lambda model: list(attention_parameters(model)),
        ):
            with pytest.raises(
                UserError,
                match=(
                    "a scripted model does not know its attention: ask the model that it was made"
                    " from"
                ),
            ):
                ask(scripted)
    assert attention_config(nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1)))) == []


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("kwargs", [False, True])
def test_hooks_of_the_host_see_what_a_block_returns(always, kwargs):
    model, x, _ = host()
    remove_attention(model)
    seen = []
    model[1].register_forward_hook(
        lambda *args: seen.append(args[-1]), with_kwargs=kwargs, always_call=always
    )
    insert_attention(model, "squeeze_excite", at="1")
    model[1].register_forward_hook(
        lambda *args: seen.append(args[-1]), with_kwargs=kwargs, always_call=always
    )
    model[2] = nn.ReLU(inplace=False)
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x)
    seen = seen[-3:]
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[2])


def test_features_of_timm_by_hook_come_after_attention():
    model, x = (
        timm.create_model("test_convnext", features_only=True, feature_cls="hook").eval(),
        torch.randn(2, 3, 64, 64),
    )
    bare = model(x)
    insert_attention(model, "squeeze_excite", at="stages_3")
    features = model(x)
    assert not torch.equal(features[-1], bare[-1])
    features[-1].mean().backward()
    assert all(p.grad is not None for p in attention_parameters(model))


@pytest.mark.filterwarnings("ignore")  # torch.ao.quantization is deprecated, and still used
def test_quantised_networks_compute_their_blocks_in_floats():
    model, x, expected = host(("1", "4"), "cpsam")
    model = quantization.fuse_modules(model, [["0", "1"], ["3", "4"]])
    quantised = nn.Sequential(quantization.QuantStub(), model, quantization.DeQuantStub()).eval()
    quantised.qconfig = quantization.get_default_qconfig("fbgemm")
    config = attention_config(quantised)
    quantization.prepare(quantised, inplace=True)
    quantised(x)
    quantization.convert(quantised, inplace=True)
    assert attention_config(quantised) == config
    assert type(quantised[1][0]).__module__.startswith("torch.ao.nn.quantized")
    assert (quantised(x) - expected).abs().max() < 0.1 * expected.abs().max()


class Rebuilt(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.yaml = {"backbone": []}

    def load(self, weights):
        raise NotImplementedError


def test_a_host_that_its_trainer_rebuilds_is_named():
    with pytest.warns(
        UserWarning,
        match=(
            "a trainer that rebuilds Rebuilt from its `yaml`.* trains it without attention:"
            " override"
        ),
    ):
        insert_attention(Rebuilt(), "cpsam", at="0")
