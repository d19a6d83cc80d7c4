"""What users of timm expect of a model, of the networks that we register in it."""

from functools import partial
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._manipulate import group_parameters
from timm.models.resnet import BasicBlock
from torch import nn

from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START, NonLocal
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.insert import (
    attention_config,
    attention_parameters,
    insert_attention,
    insert_from_config,
    remove_attention,
)
from cpsam.models import cifar_resnet, create_model, normalisation
from cpsam.models.timm_cifar import TimmThinResNet
from cpsam.models.timm_models import MODELS, AttentionResNet
from cpsam.run.arm import BARE
from cpsam.run.cost import insertion_cost
from cpsam.run.data import LoadedTask
from cpsam.testing import randomise

NETS = {"cpsam_resnet18": (2, 3, 37, 50), "cpsam_cifar_resnet20": (2, 3, 20, 13)}
WITH_ATTENTION = [name for name in MODELS if not name.startswith("cifar_")]
each_net = pytest.mark.parametrize("name", NETS)


def trained(name, **arguments):
    """A network whose blocks and norms do something, and images for it."""
    model = timm.create_model(name, num_classes=5, **arguments)
    randomise(model)
    return model.eval(), torch.randn(NETS[name])


def attention_layer(name):
    """What timm builds from the number of channels: the class, with what it has no default for."""
    return (
        partial(ATTENTION[name], hidden_channels=5) if name == "conv_control" else ATTENTION[name]
    )


def weights_file(path, model, drop=()):
    save_file({key: tensor for key, tensor in model.state_dict().items() if key not in drop}, path)
    return {
        "pretrained": True,
        "pretrained_cfg_overlay": {"file": str(path), "num_classes": 5},
        "num_classes": 5,
    }


@pytest.fixture
def resnet18():
    model = timm.create_model("resnet18", num_classes=5, zero_init_last=False)
    randomise(model)
    return model.eval()


# What is registered


def test_every_name_is_registered_with_a_configuration_and_without_weights():
    assert set(timm.list_models(module="timm_models")) == set(MODELS)
    assert set(timm.list_models(module="timm_models", name_matches_cfg=True)) == set(MODELS)
    assert not timm.list_models(module="timm_models", pretrained=True)


@pytest.mark.parametrize(
    "name, published", [("nl_resnet50", 32_915_496), ("gc_resnet50", 28_078_773)]
)
def test_published_parameters(name, published):
    """ResNet-50 with five Non-Local blocks, and with global context in the 13 blocks of c3 to c5,
    for 1000 classes.
    """
    model = timm.create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == published


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_places_are_those_of_a_named_placement(name):
    attention, placement = {
        "nl_resnet50": ("non_local", "nl-every-second-c3-c4"),
        "gc_resnet50": ("global_context", "gc-c3-c5"),
    }.get(name, ("cpsam", "before-last"))
    host = timm.create_model(name.partition("_")[2], device="meta")
    places = insert_attention(host, attention, placement)
    entries = attention_config(timm.create_model(name, device="meta"))
    assert [entry["at"] for entry in entries] == places
    assert {entry["attention"] for entry in entries} == {attention}


@pytest.mark.parametrize("name", ["cpsam_resnet50", "nl_resnet50", "gc_resnet50"])
@pytest.mark.parametrize("stride", [8, 16])
def test_a_dilated_network_has_the_same_keys(name, stride):
    plain, dilated = (
        timm.create_model(name, device="meta"),
        timm.create_model(name, device="meta", output_stride=stride),
    )
    assert list(dilated.state_dict()) == list(plain.state_dict())
    assert dilated.feature_info[-1]["reduction"] == stride


def test_non_local_pools_keys_and_values_as_in_its_recipe():
    blocks = [
        m
        for m in timm.create_model("nl_resnet50", device="meta").modules()
        if isinstance(m, NonLocal)
    ]
    assert len(blocks) == 5 and all(block.subsample and block.norm == "batch" for block in blocks)


@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
@pytest.mark.parametrize("shortcut", ["padded", "projection"])
def test_thin_networks_are_those_of_cifar_resnet(name, shortcut):
    ours = cifar_resnet(name, 5, in_channels=2, shortcut=shortcut).eval()
    timms = timm.create_model(f"cifar_{name}", num_classes=5, in_chans=2, shortcut=shortcut).eval()
    assert timms.state_dict().keys() == ours.state_dict().keys()
    randomise(ours)
    timms.load_state_dict(ours.state_dict())
    x = torch.randn(2, 2, 11, 14)
    torch.testing.assert_close(timms(x), ours(x))
    assert not attention_config(timms)


# What timm.create_model takes


@each_net
def test_classes_channels_and_pooling(name):
    shape = NETS[name]
    model = timm.create_model(name, num_classes=7, in_chans=2, global_pool="catavgmax").eval()
    randomise(model)
    x = torch.randn(shape[0], 2, *shape[2:])
    features = model.forward_features(x)
    pooled = torch.cat((features.mean((2, 3)), features.amax((2, 3))), 1)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), pooled)
    torch.testing.assert_close(model(x), pooled @ model.fc.weight.T + model.fc.bias)
    assert (model.num_classes, model.in_chans, model.fc.out_features) == (7, 2, 7)


@each_net
def test_dropout_before_the_classifier_in_training_only(name):
    model, x = trained(name, drop_rate=1)
    logits = model(x)
    assert not torch.equal(logits[0], logits[1])
    assert torch.equal(model.train()(x), model.fc.bias.expand(2, 5))


@each_net
def test_another_block_at_another_place(name):
    model = timm.create_model(name, attention="squeeze_excite", at="layer1.*", device="meta")
    assert [(entry["at"], entry["attention"]) for entry in attention_config(model)] == [
        (f"layer1.{index}", "squeeze_excite") for index in range(len(model.layer1))
    ]
    with pytest.raises(UserError, match="unknown attention 'cpsan': did you mean 'cpsam'"):
        timm.create_model(name, attention="cpsan")


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_argument_is_a_type_error(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'not_an_argument'"):
        timm.create_model(name, not_an_argument=1, device="meta")


@each_net
def test_device_and_precision_from_the_start(name):
    for model in (
        timm.create_model(name, device="meta", dtype=torch.bfloat16),
        timm.create_model(name, dtype=torch.float64),
    ):
        tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
        assert len({(t.device, t.dtype) for t in tensors}) == 1
    assert model(torch.randn(NETS[name], dtype=torch.float64)).dtype == torch.float64
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3)
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}
    assert model(torch.empty(NETS[name], device="meta")).shape == (2, 3)


# What timm's models do


@each_net
def test_features_only(name):
    model, x = (each.double() for each in trained(name))
    expected = model.forward_intermediates(x, intermediates_only=True)
    for kind in ("list", "getter", "fx"):
        backbone = (
            timm.create_model(name, features_only=True, feature_cls=kind, out_indices=(0, 2, 3))
            .double()
            .eval()
        )
        target = getattr(backbone, "graph_module", None) or getattr(backbone, "model", backbone)
        target.load_state_dict(
            {key: value for key, value in model.state_dict().items() if key in target.state_dict()}
        )
        features = backbone(x)
        for feature, index in zip(features, (0, 2, 3), strict=True):
            torch.testing.assert_close(feature, expected[index])
        assert backbone.feature_info.channels() == [f.shape[1] for f in features]
        for feature, stride in zip(features, backbone.feature_info.reduction(), strict=True):
            assert tuple(feature.shape[2:]) == tuple(-(-side // stride) for side in x.shape[2:])
    assert len(timm.create_model(name, features_only=True, device="meta")(x.to("meta"))) == len(
        expected
    )


@each_net
def test_forward_intermediates_are_what_the_modules_return(name):
    model, x = trained(name)
    seen = {}
    for info in model.feature_info:
        model.get_submodule(info["module"]).register_forward_hook(
            lambda _, __, y, at=info["module"]: seen.setdefault(at, y.clone())
        )
    last, features = model.forward_intermediates(x)
    for feature, info in zip(features, model.feature_info, strict=True):
        assert torch.equal(feature, seen[info["module"]]) and feature.shape[1] == info["num_chs"]
    assert torch.equal(last, features[-1]) and torch.equal(last, model.forward_features(x))
    torch.testing.assert_close(model.forward_head(last), model(x))
    some = model.forward_intermediates(x, indices=[0, 2], stop_early=True, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(some, (features[0], features[2]), strict=True))
    assert torch.equal(model.forward_intermediates(x, indices=[1], stop_early=True)[0], features[1])
    assert torch.equal(model.forward_intermediates(x, indices=1, intermediates_only=True)[0], last)


@each_net
def test_pruned_networks_end_at_the_feature_asked_for(name):
    full, x = trained(name)
    expected = full.forward_intermediates(x, intermediates_only=True)
    for index, feature in enumerate(expected):
        model = timm.create_model(name, num_classes=5).eval()
        model.load_state_dict(full.state_dict())
        assert model.prune_intermediate_layers([index]) == [index]
        assert (
            torch.equal(model.forward_features(x), feature)
            and model.num_features == feature.shape[1]
        )
        assert torch.equal(model(x), feature) and model.num_classes == 0
    model = timm.create_model(name, num_classes=5).eval()
    model.load_state_dict(full.state_dict())
    model.prune_intermediate_layers(1, prune_head=False)
    assert torch.equal(model(x), full(x))


@each_net
def test_reset_classifier_keeps_the_pooling_that_it_is_not_given(name):
    model, x = trained(name, global_pool="max")
    features = model.forward_features(x)
    model.reset_classifier(9)
    assert (
        model(x).shape == (2, 9) and model.num_classes == 9 and model.get_classifier() is model.fc
    )
    model.reset_classifier(0, global_pool=None)
    torch.testing.assert_close(model(x), features.amax((2, 3)))
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(x), features.mean((2, 3)))
    model.reset_classifier(0, "")
    assert torch.equal(model(x), features) and model.get_classifier(name_only=True) == "fc"
    model.double().reset_classifier(3, "avg")
    assert model.fc.weight.dtype == torch.float64 and not model.fc.training


@each_net
@pytest.mark.parametrize("features_only", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(name, features_only):
    torch.manual_seed(1)
    model = (
        timm.create_model(name, features_only=True)
        if features_only
        else timm.create_model(name, num_classes=5)
    )
    x = torch.randn(NETS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # it is the recomputation that would count twice
            nn.init.uniform_(module.weight, 0.5, 1.5)
    calls, gradients = [], []
    next(m for m in model.modules() if isinstance(m, ATTENTION["cpsam"])).register_forward_pre_hook(
        lambda *_: calls.append(1)
    )
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        out = model(x)
        sum(feature.square().mean() for feature in (out if features_only else [out])).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert len(calls) == (3 if enable else 1)  # the second time once more, in the backward pass
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)
    # The features end before the classifier, and the deepest are taken: nothing but a classifier is
    # without gradient.
    assert len(gradients[0]) == len(
        [n for n, _ in model.named_parameters() if not (features_only and n.startswith("fc"))]
    )


@each_net
def test_scripted_networks_agree(name):
    with timm.set_scriptable(True):
        model, x = trained(name)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))


@each_net
def test_parameters_are_grouped_by_depth(name):
    """Layer-wise learning rates: a block shares the group of the residual block that it
    hangs on.
    """
    model = timm.create_model(name, device="meta")
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["conv1.weight"] == groups["bn1.bias"] == 0
    blocks = [key for key in groups if ".attention." in key]
    assert blocks and all(
        groups[key] == groups[f"{key.partition('.attention.')[0]}.conv1.weight"] for key in blocks
    )
    assert groups["fc.weight"] == max(groups.values()) > groups[blocks[-1]]
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert len(set(coarse.values())) == 2 + len(model.feature_info) - 1


# Weights


def test_weights_of_timms_plain_network_give_its_logits_bit_by_bit(resnet18, tmp_path):
    arguments = weights_file(tmp_path / "host.safetensors", resnet18)
    model, x = (
        timm.create_model("cpsam_resnet18", **arguments).eval(),
        torch.randn(NETS["cpsam_resnet18"]),
    )
    assert torch.equal(model(x), resnet18(x))
    new = set(model.state_dict()) - set(resnet18.state_dict())
    assert new and all(".attention." in key for key in new)
    for parameter in attention_parameters(model):
        nn.init.normal_(parameter)
    assert not torch.equal(model(x), resnet18(x))


def test_weights_for_other_classes_channels_and_for_features(resnet18, tmp_path):
    arguments = weights_file(tmp_path / "host.safetensors", resnet18)
    x = torch.randn(NETS["cpsam_resnet18"])
    other = timm.create_model(
        "cpsam_resnet18", **arguments | {"num_classes": 3, "in_chans": 1}
    ).eval()
    assert other(x[:, :1]).shape == (2, 3)
    torch.testing.assert_close(other.conv1.weight, resnet18.conv1.weight.sum(1, keepdim=True))
    backbone = timm.create_model("cpsam_resnet18", **arguments, features_only=True).eval()
    assert torch.equal(backbone(x)[-1], resnet18.forward_features(x))


def test_weights_of_a_trained_network_come_back(tmp_path):
    for name in NETS:
        model, x = trained(name)
        again = timm.create_model(
            name, **weights_file(tmp_path / f"{name}.safetensors", model)
        ).eval()
        assert torch.equal(again(x), model(x))


def test_weights_that_lack_more_than_the_blocks_are_refused(resnet18, tmp_path):
    with pytest.raises(RuntimeError, match=r'Missing key.*: "layer3.1.conv2.weight"'):
        timm.create_model(
            "cpsam_resnet18",
            **weights_file(tmp_path / "host.safetensors", resnet18, ["layer3.1.conv2.weight"]),
        )
    model, _ = trained("cpsam_resnet18")
    key = "layer3.0.attention.0.channel_squeeze.key.weight"
    with pytest.raises(RuntimeError, match=rf'Missing key.*: "{key}"'):
        timm.create_model(
            "cpsam_resnet18", **weights_file(tmp_path / "part.safetensors", model, [key])
        )
    with pytest.raises(RuntimeError, match="Unexpected key"):
        timm.create_model("gc_resnet50", **weights_file(tmp_path / "other.safetensors", model))


def test_weights_of_a_thin_network(tmp_path):
    host = cifar_resnet("resnet20", 5)
    randomise(host)
    model = timm.create_model(
        "cpsam_cifar_resnet20", **weights_file(tmp_path / "thin.safetensors", host)
    ).eval()
    x = torch.randn(NETS["cpsam_cifar_resnet20"])
    torch.testing.assert_close(model(x), host.eval()(x))


# timm's own way to put attention into every block


@pytest.mark.parametrize("name", ATTENTION)
def test_every_block_is_an_attention_layer_of_timms_networks(name):
    model = timm.create_model(
        "test_resnet",
        num_classes=3,
        dtype=torch.float64,
        block_args={"attn_layer": attention_layer(name)},
    )
    blocks = [module for module in model.modules() if isinstance(module, ATTENTION[name])]
    assert len(blocks) == sum(len(getattr(model, f"layer{stage}")) for stage in (1, 2, 3, 4))
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    randomise(model)
    model(torch.randn(4, 3, 37, 50, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad.any() for block in blocks for p in block.parameters())


@pytest.mark.parametrize("name", [name for name in ATTENTION if name not in NOT_IDENTITY_AT_START])
def test_blocks_start_as_they_do_though_timm_draws_every_convolution(name):
    small = {
        "layers": (1, 1, 1, 1),
        "channels": (8, 16, 24, 32),
        "block_args": {"attn_layer": attention_layer(name)},
    }
    model = AttentionResNet(BasicBlock, **small, attention="cpsam", at="layer2").eval()
    for _ in range(2):
        for block in [m for m in model.modules() if isinstance(m, tuple(ATTENTION.values()))]:
            x = torch.randn(2, block.in_channels, 3, 5)
            assert torch.equal(block(x), x)
        randomise(model)
        model.init_weights()
    channel_squeeze = model.layer2[0].attention[0].channel_squeeze
    assert not channel_squeeze.expand.weight.any() and channel_squeeze.squeeze.weight.any()


# cpsam's own functions


@pytest.mark.parametrize(
    "name, host", [("cpsam_resnet18", "resnet18"), ("gc_resnet50", "resnet50")]
)
def test_attention_is_seen_removed_and_rebuilt(name, host):
    model, plain = timm.create_model(name, device="meta"), timm.create_model(host, device="meta")
    keys, config = list(model.state_dict()), attention_config(model)
    assert remove_attention(model) == [entry["at"] for entry in config]
    assert list(model.state_dict()) == list(plain.state_dict()) and not attention_config(model)
    insert_from_config(model, config)
    assert list(model.state_dict()) == keys and attention_config(model) == config


def test_create_model_draws_the_host_as_without_attention(resnet18, tmp_path):
    model, host = (
        create_model("timm/cpsam_resnet18", 7, seed=3),
        create_model("timm/resnet18", 7, seed=3),
    )
    assert all(
        torch.equal(model.state_dict()[key], value) for key, value in host.state_dict().items()
    )
    weights_file(tmp_path / "host.safetensors", resnet18)
    x = torch.randn(NETS["cpsam_resnet18"])
    assert torch.equal(
        create_model("timm/cpsam_resnet18", 5, weights=tmp_path / "host.safetensors").eval()(x),
        resnet18(x),
    )
    assert isinstance(create_model("timm/cifar_resnet20", 4, attention="cpsam"), TimmThinResNet)


def test_a_network_with_attention_of_its_own_is_no_host_of_a_comparison():
    refusal = "timm/cpsam_cifar_resnet20 has attention of its own: name its host"
    for attention in ("none", "cpsam", "non_local"):
        with pytest.raises(UserError, match=refusal):
            create_model("timm/cpsam_cifar_resnet20", 10, attention=attention)
    task, dataset = (
        Task(model="timm/cpsam_cifar_resnet20"),
        SimpleNamespace(num_classes=10, in_channels=3),
    )
    with pytest.raises(UserError, match=refusal):
        LoadedTask(task, dataset).build(BARE, 0)
    with pytest.raises(UserError, match=refusal):
        insertion_cost(
            task.model,
            "non_local",
            ["early"],
            image_shape=(3, 20, 13),
            num_classes=10,
            batch_size=2,
        )


def test_a_name_without_its_library_is_told_which():
    with pytest.raises(
        UserError, match="unknown model 'cpsam_resnet50': did you mean 'timm/cpsam_resnet50'"
    ):
        create_model("cpsam_resnet50", 10)


def test_pixels_are_scaled_as_the_configuration_says():
    assert normalisation("timm/cpsam_resnet50") == normalisation("timm/resnet50.tv_in1k")
    mean, sd = normalisation("timm/cifar_resnet20")
    assert mean == (0.5071, 0.4865, 0.4409) and sd == (0.2673, 0.2564, 0.2762)
