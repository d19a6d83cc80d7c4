"""What cannot work is refused with a reason, and leaves the model as it was."""

from functools import partial

import pytest
import torch
from support.hosts import SmallCNN, snapshot
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18, swin_t

from cpsam.attention import CPSAM, ConvControl
from cpsam.errors import UserError
from cpsam.insert import attention_config, insert_attention, insert_from_config, remove_attention


class Host(nn.Module):
    """Two convolutions in a row; each test changes how they are called."""

    def __init__(self, **more):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.second(self.first(x).relu())


class CallsForward(Host):
    def forward(self, x):
        return self.second.forward(self.first(x))


class CallsNever(Host):
    def forward(self, x):
        return self.first(x)


class CallsTwice(Host):
    def forward(self, x):
        return self.second(self.second(self.first(x)))


class ReturnsTuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x):
        return self.conv(x), x


class HasTuple(Host):
    def __init__(self):
        super().__init__(second=ReturnsTuple())

    def forward(self, x):
        return self.second(self.first(x))[0]


class ReadsAValue(Host):
    def forward(self, x):
        y = self.first(x)
        return self.second(y) if float(y.abs().max()) > 0 else y


class TwoInputs(Host):
    def forward(self, x, mask):
        return self.second(self.first(x) * mask)


class ScaledByName(Host):
    def forward(self, x, *, scale):
        return super().forward(x * scale)


def test_an_example_may_be_several_arguments():
    image, mask = torch.zeros(1, 3, 16, 24), torch.zeros(1, 1, 16, 24)
    for host, example in (
        (TwoInputs, (image, mask)),
        (TwoInputs, {"x": image, "mask": mask}),
        (ScaledByName, {"x": image, "scale": 2.0}),
    ):
        assert insert_attention(host(), "cpsam", at="second", example_input=example) == ["second"]


class Pools(Host):
    def __init__(self):
        super().__init__(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(6, 2))

    def forward(self, x):
        return self.fc(self.flat(self.pool(super().forward(x))))


def shared():
    model = Host()
    model.second = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())
    model.third = model.second
    model.forward = lambda x: model.third(model.second(model.first(x)))
    return model


def place_with_its_own_attention():
    model = Host()
    model.second.attention = None
    return model


REFUSED = [
    (
        "never called",
        CallsNever,
        "second",
        "cannot insert at 'second': it is never called in a forward",
    ),
    (
        "called through forward",
        CallsForward,
        "second",
        "cannot insert at 'second': it is never called in a forward",
    ),
    (
        "called twice",
        CallsTwice,
        "second",
        "'second': it is called 2 times in a forward, so that one block would serve all",
    ),
    ("shared", shared, "second", r"'second\.1': it is called 2 times"),
    ("a tuple", HasTuple, "second", "'second': it returns a tuple, not one tensor"),
    (
        "reads a value",
        ReadsAValue,
        "second",
        r"'second': the forward of the model stopped before it: .*(item|meta)",
    ),
    (
        "two inputs",
        TwoInputs,
        "second",
        "'second': the forward of the model stopped before it: TypeError: .*mask",
    ),
    ("two axes", Pools, "flat", r"'flat': it returns 2 axes \(2, 6\), not \(N, C, H, W\)"),
    (
        "pooled to one position",
        Pools,
        "pool",
        r"'pool': its channel axis is unclear, \(2, 6, 1, 1\) and \(2, 6, 1, 1\)",
    ),
    (
        "an attribute of the same name",
        place_with_its_own_attention,
        "second",
        "'second': Conv2d has an attribute 'attention' of its own",
    ),
    (
        "a container without a forward",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Lists()),
        "1.layers",
        "'1.layers': it is never called",
    ),
    (
        "no convolution",
        lambda: nn.Sequential(nn.Flatten(), nn.Identity()),
        "0",
        "has no Conv2d: pass example_input",
    ),
    ("no module", lambda: Host().forward, "second", "model must be a torch.nn.Module; got method"),
]


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def refuse(model, message, make="cpsam", at="second", **arguments):
    before = snapshot(model) if isinstance(model, nn.Module) else None
    with pytest.raises(UserError, match=message) as caught:
        insert_attention(model, make, at=at, **arguments)
    assert "\n" not in str(caught.value)
    assert before is None or snapshot(model) == before


@pytest.mark.parametrize(
    "build, at, message", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_place_or_host_that_cannot_work_is_refused(build, at, message):
    refuse(build(), message, at=at)


def test_one_bad_place_among_good_ones_leaves_the_good_ones_alone():
    refuse(Pools(), "'pool'", at=("first", "second", "pool"))
    refuse(place_with_its_own_attention(), "'second'", at=("first", "second"))


def test_channels_last_hosts_are_refused_by_name_of_the_axis():
    with torch.device("meta"):
        model = swin_t()
    refuse(
        model,
        r"'features\.1\.0': its channels are the last axis, \(2, 32, 40, 96\)",
        at="features.1.0",
    )


def test_scripted_compiled_and_wrapped_models_are_refused():
    refuse(torch.jit.script(Host()), "scripted model: insert first, then script")
    refuse(
        torch.compile(Host()),
        "compiled model, whose code is fixed already: insert first, then compile",
        at="_orig_mod.second",
    )
    model = Host()
    model.compile()
    refuse(model, "compiled model")
    model = Host()
    model.first.compile()
    refuse(model, "compiled model")
    refuse(nn.Sequential(torch.compile(Host())), "compiled model", at="0.second")
    refuse(
        nn.Sequential(torch.jit.script(Host())),
        "scripted part: put the Python module back at '0', insert, then script",
        at="0.second",
    )


@pytest.fixture
def one_process():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_sharded_models_are_refused(one_process):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Host()
    fully_shard(model.first, mesh=init_device_mesh("cpu", (1,)))
    refuse(model, "FSDPModule, which spreads its model over devices: insert first, then wrap")


def test_models_wrapped_for_distribution_are_refused(one_process):
    wrapped = DistributedDataParallel(Host())
    refuse(
        wrapped,
        "DistributedDataParallel, which spreads its model over devices: insert first, then wrap",
        at="module.second",
    )
    refuse(nn.Sequential(wrapped), "DistributedDataParallel", at="0.module.second")
    refuse(
        nn.DataParallel(Host()),
        "cannot insert into DataParallel, .*: insert first, then wrap",
        at="module.second",
    )
    with pytest.raises(UserError, match="DistributedDataParallel"):
        insert_from_config(wrapped, [])


class HalvesAndDoubles(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2)


class ShrinksInTraining(nn.Module):
    def forward(self, x):
        return x[:, :, 1:] if self.training else x


class ReturnsTwo(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    "make, message",
    [
        ("cpsm", "unknown attention 'cpsm': did you mean 'cpsam'"),
        (
            "conv_control",
            (
                "conv_control needs a value for hidden_channels, as in"
                " conv_control:hidden_channels=16"
            ),
        ),
        (ConvControl, "missing a required argument: 'hidden_channels'; give it by keyword"),
        (partial(CPSAM, ratio=4), "cannot be made: .*ratio"),
        (
            lambda channels: nn.Conv2d(channels, 8, 1),
            (
                r"cannot insert Conv2d: it must return the shape it is given, \(2, 6, 7, 9\); got"
                r" \(2, 8"
            ),
        ),
        (
            lambda channels: HalvesAndDoubles(),
            r"cannot insert HalvesAndDoubles: .*\(2, 6, 7, 9\); got \(2, 6, 6, 8\)",
        ),
        (
            lambda channels: ShrinksInTraining(),
            r"cannot insert ShrinksInTraining: .*got \(2, 6, 6, 9\)",
        ),
        (lambda channels: ReturnsTwo(), "cannot insert ReturnsTwo: .*got a tuple"),
        (lambda: CPSAM(6), "a block on 6 channels cannot be made: .*positional argument"),
        (lambda channels: channels, "block must make a torch.nn.Module; got int"),
        (lambda channels: None, "block must make a torch.nn.Module; got NoneType"),
        (7, "block must be a name or a callable .*got int"),
        (None, "block must be a name or a callable .*got NoneType"),
        (CPSAM(6), "block must .*got CPSAM"),
    ],
    ids=[
        "unknown",
        "conv_control",
        "a class that lacks one",
        "ratio",
        "width",
        "odd sizes",
        "training",
        "tuple",
        "no argument",
        "int",
        "None returned",
        "a number",
        "None",
        "a module",
    ],
)
def test_what_makes_no_block_is_refused(make, message):
    refuse(Host(), message, make=make)


@pytest.mark.parametrize(
    "block, arguments, message",
    [
        ("cpsam", {"fusio": "sum"}, "unknown argument of cpsam 'fusio': did you mean 'fusion'"),
        ("cpsam", {"fusion": "summ"}, "fusion must be one of .*did you mean 'sum'"),
        ("cpsam:fusion=sum", {"fusion": "sum"}, "fusion is given twice: in 'cpsam:fusion=sum'"),
        ("cpsam:fusion", {}, "unknown argument of cpsam 'fusion'"),
        (CPSAM, {"fusio": "sum"}, "unknown argument of CPSAM 'fusio': did you mean 'fusion'"),
        (lambda channels: CPSAM(channels), {"fusion": "sum"}, "unknown argument of <lambda>"),
        ("none", {}, "unknown attention 'none'"),
    ],
)
def test_what_does_not_fit_as_an_argument_is_refused(block, arguments, message):
    refuse(Host(), message, make=block, **arguments)


def test_the_same_class_twice_at_one_place_is_refused():
    model = Host()
    insert_attention(model, "cpsam", at="second")
    refuse(model, "'second': it has a CPSAM already", at=("first", "second"))
    refuse(
        model,
        "'second': it has a CPSAM already",
        make=lambda channels: CPSAM(channels, fusion="sum"),
    )
    assert insert_attention(model, "cpsam", at="first") == ["first"]
    remove_attention(model)
    assert insert_attention(model, "cpsam", at="second") == ["second"]


@pytest.mark.parametrize(
    "example",
    [torch.zeros(3, 8, 9), torch.zeros(2, 3), torch.zeros(1, 3, 4, 8, 9)],
    ids=lambda x: str(tuple(x.shape)),
)
def test_an_example_that_is_no_batch_of_images_is_refused(example):
    refuse(
        Host(),
        r"example_input must be images \(N, C, H, W\); got the shape"
        rf" \({', '.join(map(str, example.shape))}\)",
        example_input=example,
    )


def test_an_example_that_is_no_tensor_is_refused():
    refuse(
        Host(),
        r"example_input must be images \(N, C, H, W\); got tuple",
        example_input=(1, 3, 32, 32),
    )


def test_an_example_that_does_not_fit_is_refused_with_the_reason():
    refuse(
        Host(),
        "the forward of the model stopped before it: RuntimeError: .*channel",
        example_input=torch.zeros(1, 5, 8, 9),
    )


def test_a_classifier_made_for_one_size_leaves_its_features_open_to_insertion():
    model, x = SmallCNN((20, 28)).eval(), torch.randn(2, 2, 20, 28)
    expected = model(x)
    assert insert_attention(model, "cpsam", at=("conv*", "norm")) == ["conv1", "conv2", "norm"]
    assert torch.equal(model(x), expected)


def test_a_host_that_needs_its_example():
    """Its first convolution does not see the image, so its channels cannot be guessed."""

    class Unshuffled(Host):
        def forward(self, x):
            return super().forward(nn.functional.pixel_unshuffle(x, 2)[:, :3])

    model = Unshuffled()
    # three channels happen to do, too
    assert insert_attention(model, "cpsam", at="second") == ["second"]
    remove_attention(model)

    class OneChannel(Host):
        def forward(self, x):
            return super().forward(torch.cat([x, x, x], 1))

    refuse(OneChannel(), "stopped before it: RuntimeError")
    model = OneChannel()
    assert insert_attention(
        model, "cpsam", at="second", example_input=torch.empty(1, 1, 40, 24)
    ) == ["second"]
    assert model.second.attention[0].in_channels == 6


def test_a_host_that_takes_one_size_alone_cannot_tell_its_channel_axis():
    class OneSize(Host):
        def forward(self, x):
            assert x.shape[2:] == (24, 40), "images must be 24x40"
            return super().forward(x)

    refuse(
        OneSize(),
        "'second': .*AssertionError: images must be 24x40",
        example_input=torch.empty(1, 3, 24, 40),
    )
    refuse(
        OneSize(),
        "'second': the forward of the model stopped before it: AssertionError: images must be"
        " 24x40",
    )


GOOD = {"at": "second", "attention": "cpsam", "arguments": {"in_channels": 6}}


@pytest.mark.parametrize(
    "config, message",
    [
        ([{**GOOD, "at": "third"}], "inserts at 'third', which this model does not have"),
        ([{**GOOD, "attention": "cpsm"}], "unknown attention 'cpsm': did you mean 'cpsam'"),
        ([{"at": "second", "attention": "cpsam"}], "has the keys at, attention, arguments; got"),
        ([{**GOOD, "more": 1}], "has the keys at, attention, arguments; got"),
        ([{**GOOD, "arguments": [6]}], "has the keys at, attention, arguments; got"),
        (["cpsam"], "has the keys at, attention, arguments; got 'cpsam'"),
        (GOOD, "must be a list of entries; got dict"),
        (None, "must be a list of entries; got NoneType"),
        ([{**GOOD, "at": ["second"]}], r"are words; got \['second'\] and 'cpsam'"),
        ([{**GOOD, "attention": None}], "are words; got 'second' and None"),
        (
            [{**GOOD, "arguments": {"in_channels": 6, "ratio": 4}}],
            "the 'cpsam' of the configuration at 'second' cannot be made: .*ratio",
        ),
        (
            [{**GOOD, "arguments": {"in_channels": 6, "reduction": 0}}],
            (
                "the 'cpsam' of the configuration at 'second' cannot be made: .*reduction must be a"
                " whole number, at least 1; got 0"
            ),
        ),
        (
            [{**GOOD, "arguments": {}}],
            "the 'cpsam' of the configuration at 'second' cannot be made: .*in_channels",
        ),
        ([GOOD, GOOD], "'second': it has a CPSAM already"),
        ([{**GOOD, "at": ""}], "inserts at ''"),
    ],
)
def test_a_malformed_configuration_is_refused(config, message):
    model = Host()
    before = snapshot(model)
    for entries in (
        config,
        [{**GOOD, "at": "first"}, *config] if isinstance(config, list) else config,
    ):
        with pytest.raises(UserError, match=message) as caught:
            insert_from_config(model, entries)
        assert "\n" not in str(caught.value)
        assert snapshot(model) == before


@pytest.mark.parametrize("argument", ["in_channels", "width"])
def test_a_configuration_of_a_block_that_returns_another_shape_is_refused(argument):
    class Narrow(nn.Module):
        def forward(self, x):
            return x[:, 1:]

    class NarrowWidth(Narrow):
        def __init__(self, width):
            super().__init__()

    class NarrowChannels(Narrow):
        def __init__(self, in_channels):
            super().__init__()

    model = Host()
    entry = {"at": "second", "attention": "Narrow", "arguments": {argument: 6}}
    with pytest.raises(
        UserError,
        match=(
            r"cannot insert Narrow\w+: it must return the shape .*\(2, 6, 7, 9\); got \(2, 5,"
            r" 7, 9\)"
        ),
    ):
        insert_from_config(
            model, [GOOD, entry], {"Narrow": NarrowWidth if argument == "width" else NarrowChannels}
        )
    assert attention_config(model) == []


def test_a_block_that_forgets_its_arguments_has_no_configuration():
    class Forgetful(nn.Module):
        def __init__(self, in_channels, *, strength=1.0):
            super().__init__()
            self.in_channels = in_channels

        def forward(self, x):
            return x

    model = Host()
    insert_attention(model, Forgetful, at="second")
    with pytest.raises(
        UserError,
        match="Forgetful at 'second' does not keep its argument 'strength' as an attribute",
    ):
        attention_config(model)


def test_a_pretrained_host_is_not_moved_by_a_refusal():
    torch.manual_seed(3)
    model = resnet18(num_classes=3)
    values = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    refuse(model, "unknown place", at="layer9.*")
    refuse(model, "2 axes", at=("layer3.*", "fc"))
    assert all(torch.equal(values[key], tensor) for key, tensor in model.state_dict().items())
