"""What insertion does to a model, and what it leaves alone."""

import copy
import json

import pytest
import torch
from support.hosts import snapshot
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from cpsam.attention import ATTENTION, CPSAM, GlobalContext
from cpsam.errors import UserError
from cpsam.insert import (
    attention_config,
    attention_parameters,
    insert_attention,
    insert_from_config,
    remove_attention,
)
from cpsam.insert.probe import probe
from cpsam.models import cifar_resnet, create_model
from cpsam.testing import randomise


class Scale(nn.Module):
    """Of no file of ours; keeps its arguments, as a configuration asks for."""

    def __init__(self, in_channels, *, factor=3.0, shift=1.0):
        super().__init__()
        self.in_channels, self.factor, self.shift = in_channels, factor, shift
        self.bias = nn.Parameter(torch.full((in_channels, 1, 1), shift))

    def forward(self, x):
        return self.factor * x + self.bias


class Double(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels

    def forward(self, x):
        return 2 * x


def host():
    return cifar_resnet("resnet20", 5).eval()


def at_place(model, path, x):
    seen = []
    handle = model.get_submodule(path).register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0]


WAYS = {
    "keywords": ("cpsam", {"fusion": "sum", "reduction": 4}),
    "words": ("cpsam:fusion=sum,reduction=4", {}),
    "both": ("CPSAM:fusion=sum", {"reduction": 4}),
    "a class": (CPSAM, {"fusion": "sum", "reduction": 4}),
    "a callable": (lambda channels: CPSAM(channels, fusion="sum", reduction=4), {}),
}


@pytest.mark.parametrize("block, arguments", WAYS.values(), ids=WAYS)
def test_arguments_of_a_block_reach_every_place(block, arguments):
    model = host()
    assert insert_attention(model, block, at="Before-Last", **arguments) == ["layer2.1", "layer3.1"]
    for entry, channels in zip(attention_config(model), (32, 64), strict=True):
        given = {"in_channels": channels, "reduction": 4, "fusion": "sum"}
        assert entry["attention"] == "cpsam"
        assert entry["arguments"] == {**given, "interaction": "mlp", "norm": "batch"}


def test_the_default_place_is_the_same_everywhere():
    model = host()
    assert insert_attention(model, Scale, factor=2, shift=0.5) == ["layer2.1", "layer3.1"]
    created = create_model("resnet20", 5, attention="Non_Local", reduction=4, mode="gaussian")
    assert [entry["at"] for entry in attention_config(created)] == ["layer2.1", "layer3.1"]
    assert attention_config(created)[0]["arguments"]["mode"] == "gaussian"


def test_arguments_without_a_block_are_refused():
    for attention in (None, "none", "None"):
        with pytest.raises(UserError, match="fusion is for blocks"):
            create_model("resnet20", 5, attention=attention, fusion="sum")


def test_two_blocks_at_one_place_compose_in_the_order_of_insertion():
    x = torch.randn(2, 3, 12, 20)
    plain = host()
    bare = at_place(plain, "layer2.1", x)
    for first, second, expected in (
        (Scale, Double, 2 * (3 * bare + 1)),
        (Double, Scale, 3 * (2 * bare) + 1),
    ):
        model = copy.deepcopy(plain)
        assert (
            insert_attention(model, first, at="layer2.1")
            == insert_attention(model, second, at="layer2.1")
            == ["layer2.1"]
        )
        assert [type(block) for block in model.layer2[1].attention] == [first, second]
        torch.testing.assert_close(at_place(model, "layer2.1", x), expected)
        assert [entry["attention"] for entry in attention_config(model)] == [
            first.__name__,
            second.__name__,
        ]
        assert len(model.layer2[1]._forward_hooks) == 1


def test_what_a_place_returns_is_what_goes_on():
    """Not only what a hook sees: the network behind the place gets the output of the block."""
    model, x = host(), torch.randn(2, 3, 12, 20)
    before = at_place(model, "layer3.2", x)
    insert_attention(model, Double, at="layer3.2")
    with torch.no_grad():
        logits = model(x)
    torch.testing.assert_close(
        logits, nn.functional.linear(2 * before.mean((2, 3)), model.fc.weight, model.fc.bias)
    )


def test_hooks_of_the_host_stay_before_and_after_ours():
    model, x = host(), torch.randn(2, 3, 12, 20)
    bare, seen = at_place(model, "layer2.1", x), {}
    place = model.layer2[1]

    def earlier(module, args, output):
        seen["earlier"] = output
        return output + 5

    place.register_forward_hook(earlier)
    place.register_forward_pre_hook(lambda module, args: None)
    place.register_forward_hook(lambda module, args, kwargs, output: output, with_kwargs=True)
    before = snapshot(model)
    insert_attention(model, Double, at="layer2.1")
    later = place.register_forward_hook(
        lambda module, args, output: seen.__setitem__("later", output)
    )
    with torch.no_grad():
        model(x)
    # the host's, although registered first, sees what the block returns
    assert torch.equal(seen["earlier"], 2 * bare)
    assert torch.equal(seen["later"], 2 * bare + 5)
    assert remove_attention(model) == ["layer2.1"]
    later.remove()
    assert snapshot(model) == before
    with torch.no_grad():
        model(x)
    assert torch.equal(seen["earlier"], bare)


def test_blocks_take_device_precision_and_mode_of_their_place():
    model = host().double()
    model.layer3.train()
    insert_attention(model, "cpsam", at=("layer2.0", "layer3.0"))
    parameters = list(attention_parameters(model))
    assert {p.dtype for p in parameters} == {torch.float64} and all(
        p.requires_grad for p in parameters
    )
    assert not any(m.training for m in model.layer2[0].attention.modules()) and all(
        m.training for m in model.layer3[0].attention.modules()
    )
    with torch.device("meta"):
        model = resnet18().bfloat16()
    insert_attention(model, "non_local", at="nl-c4-last")
    assert {(p.device.type, p.dtype) for p in attention_parameters(model)} == {
        ("meta", torch.bfloat16)
    }


def test_a_place_without_parameters_takes_them_from_the_model():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).double()
    insert_attention(model, "cpsam", at="1")
    assert {p.dtype for p in attention_parameters(model)} == {torch.float64}
    assert model(torch.randn(2, 3, 5, 7, dtype=torch.float64)).dtype == torch.float64


def test_the_memory_format_of_the_host_flows_through():
    model, x = (
        host().to(memory_format=torch.channels_last),
        torch.randn(2, 3, 12, 20).contiguous(memory_format=torch.channels_last),
    )
    bare = at_place(model, "layer2.1", x)
    insert_attention(model, "cpsam", at="layer2.1")
    assert bare.is_contiguous(memory_format=torch.channels_last)
    assert at_place(model, "layer2.1", x).is_contiguous(memory_format=torch.channels_last)


def test_attention_parameters_are_the_new_ones_each_once():
    model = host()
    old = {id(p) for p in model.parameters()}
    insert_attention(model, "cpsam", at=("layer2.*", "layer3.1"))
    insert_attention(model, "global_context", at="layer3.1")
    new = [id(p) for p in attention_parameters(model)]
    assert len(new) == len(set(new)) and set(new) == {id(p) for p in model.parameters()} - old
    assert list(attention_parameters(host())) == []


def test_a_frozen_host_trains_its_attention_alone():
    model = host().requires_grad_(False).train()
    insert_attention(model, "cpsam", at="before-last")
    model(torch.randn(4, 3, 12, 20)).square().sum().backward()
    assert all(p.grad is not None for p in attention_parameters(model))
    assert all(p.grad is None for name, p in model.named_parameters() if ".attention." not in name)


def test_gradients_of_the_host_do_not_change_at_the_start():
    """The identity passes gradients through: a new block changes no step of the rest of the
    network.
    """
    torch.manual_seed(1)
    model, x = cifar_resnet("resnet20", 5).train(), torch.randn(4, 3, 12, 20)
    twin = copy.deepcopy(model)
    insert_attention(twin, "cpsam", at="before-last")
    insert_attention(twin, "non_local", at="early")
    for network in (model, twin):
        network(x).square().sum().backward()
    gradients = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


def test_configurations_are_plain_data_and_rebuild_what_was_there():
    model, x = host(), torch.randn(2, 3, 12, 20)
    insert_attention(
        model,
        lambda channels: CPSAM(channels, fusion="sum", reduction=4),
        at=("layer2.1", "layer3.2"),
    )
    insert_attention(model, "eca", at="layer3.2")
    insert_attention(model, lambda channels: Scale(channels, factor=2.0), at="layer1.0")
    config = attention_config(model)
    cpsam = {"reduction": 4, "interaction": "mlp", "fusion": "sum", "norm": "batch"}
    assert config == [
        {
            "at": "layer1.0",
            "attention": "Scale",
            "arguments": {"in_channels": 16, "factor": 2.0, "shift": 1.0},
        },
        {"at": "layer2.1", "attention": "cpsam", "arguments": {"in_channels": 32, **cpsam}},
        {"at": "layer3.2", "attention": "cpsam", "arguments": {"in_channels": 64, **cpsam}},
        {"at": "layer3.2", "attention": "eca", "arguments": {"in_channels": 64, "kernel_size": 3}},
    ]
    randomise(model.layer3[2].attention)
    rebuilt = host().train()
    with pytest.raises(UserError, match="unknown attention 'Scale'"):
        insert_from_config(rebuilt, config)
    assert insert_from_config(rebuilt, json.loads(json.dumps(config)), blocks={"Scale": Scale}) == [
        "layer1.0",
        "layer2.1",
        "layer3.2",
    ]
    assert all(module.training for module in rebuilt.modules())
    rebuilt.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(x), model(x))
    assert attention_config(rebuilt) == config and attention_config(host()) == []
    assert insert_from_config(host(), []) == []


def test_insertion_from_a_configuration_needs_no_forward():
    class Unrunnable(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            raise AssertionError("a forward was run")

    model = Unrunnable()
    assert insert_from_config(
        model, [{"at": "conv", "attention": "eca", "arguments": {"in_channels": 4}}]
    ) == ["conv"]


def test_removal_is_complete_and_can_be_repeated():
    model, x = mobilenet_v2(num_classes=3).eval(), torch.randn(2, 3, 32, 48)
    before = snapshot(model)
    with torch.no_grad():
        expected = model(x)
    assert remove_attention(model) == []
    for name in ("cbam", "cpsam", "bam"):
        insert_attention(model, name, at=("early", "features.5.*"))
    assert remove_attention(model) != [] and remove_attention(model) == []
    assert snapshot(model) == before
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    insert_attention(model, "cpsam", at="early")
    with torch.no_grad():
        assert torch.equal(model(x), expected)


def test_multiplicative_gates_act_at_once_and_go_without_a_trace():
    model, x = host(), torch.randn(2, 3, 12, 20)
    with torch.no_grad():
        expected = model(x)
        for name in ("squeeze_excite", "cbam", "eca", "bam"):
            insert_attention(model, name, at="before-last")
            assert not torch.equal(model(x), expected)
            remove_attention(model)
            assert torch.equal(model(x), expected)


def test_the_probe_leaves_flags_buffers_and_random_numbers_alone():
    model = resnet18().train()
    model.layer2.eval()
    model.bn1.weight.requires_grad_(False)
    before, values = snapshot(model), copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    probe(model)
    probe(model, torch.randn(1, 3, 33, 65, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), random)
    assert snapshot(model) == before
    assert all(torch.equal(values[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_the_probe_computes_nothing():
    devices = set()

    class Watch(nn.Module):
        def forward(self, x):
            devices.add(x.device.type)
            return x

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Watch(), nn.Dropout(0.5))
    seen = probe(model)
    assert devices == {"meta"} and seen.failure == ""
    assert [seen.channels(str(i)) for i in range(4)] == [4, 4, 4, 4]


@pytest.mark.parametrize("shape", [None, (1, 3, 32, 32), (2, 3, 63, 41), (1, 3, 8, 8)], ids=str)
def test_strides_and_channels_do_not_depend_on_the_size_of_the_example(shape):
    model = cifar_resnet("resnet18", 10)
    seen = probe(model, None if shape is None else torch.empty(shape))
    assert [seen.stride(f"layer{i}") for i in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert [seen.channels(f"layer{i}.1.bn2") for i in (1, 2, 3, 4)] == [64, 128, 256, 512]


def test_a_probe_of_a_strided_network_sees_powers_of_two():
    seen = probe(resnet18())
    assert [
        seen.stride(path) for path in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    ] == [2, 4, 4, 8, 16, 32]


@pytest.mark.parametrize("channels", [1, 4])
def test_images_need_not_have_three_channels(channels):
    model = cifar_resnet("resnet20", 10, in_channels=channels)
    assert insert_attention(model, "cpsam", at="before-last") == ["layer2.1", "layer3.1"]


def test_a_shared_module_keeps_its_weights():
    """A module under two names came back from a probe without values once."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    model.append(model[0]).append(nn.Conv2d(3, 4, 1))
    x = torch.randn(2, 3, 5, 7)
    expected = model(x)
    assert insert_attention(model, "cpsam", at="3") == ["3"]
    assert torch.equal(model(x), expected)
    with pytest.raises(UserError, match="'0': it is called 2 times"):
        insert_attention(model, "cpsam", at="0")
    assert torch.equal(model(x), expected)


def test_every_block_by_name_can_be_inserted_where_one_argument_is_enough():
    for name in ATTENTION:
        if name != "conv_control":
            assert insert_attention(host(), name, at="layer2.1") == ["layer2.1"]


def test_make_gets_the_channels_of_each_place():
    given = []
    insert_attention(
        host(),
        lambda channels: given.append(channels) or GlobalContext(channels),
        at=("layer*.0", "layer3.*.bn1"),
    )
    assert given == [16, 32, 64, 64, 64, 64]
