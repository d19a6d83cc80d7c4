"""Hosts that nothing here was made for: detectors, dense blocks, traced, compiled and channels-last
networks.
"""

import threading

import pytest
import timm
import torch
from support.hosts import snapshot
from torch import nn
from torch.nn import utils
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune
from torchvision.models import SwinTransformer, densenet121, googlenet
from torchvision.models.detection import fasterrcnn_resnet50_fpn, ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import deeplabv3_resnet50

from cpsam.errors import UserError
from cpsam.insert import attention_parameters, insert_attention, remove_attention
from cpsam.models.cifar_resnet import ThinResNet
from cpsam.testing import randomise


def refuse(model, at, message, **arguments):
    before = snapshot(model)
    with pytest.raises(UserError, match=message) as caught:
        insert_attention(model, "cpsam", at=at, **arguments)
    assert "\n" not in str(caught.value)
    assert snapshot(model) == before


def insert_unheard(model, at, *images):
    """Insert blocks at each place: identical at the start, heard once trained, and gone again."""
    model.eval()
    with torch.no_grad():
        expected = model(*images)
        for name in ("cpsam", "non_local"):
            found = insert_attention(model, name, at=at)
        assert torch.equal(model(*images), expected)
        for path in found:
            randomise(model.get_submodule(path).attention)
        assert (model(*images) - expected).abs().max() > 1e-4 * expected.abs().max()
        remove_attention(model)
        assert torch.equal(model(*images), expected)
    return found


@pytest.fixture(scope="module")
def detector():
    return fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=96
    )


def seeded(call):
    torch.manual_seed(1)
    return call()


def test_a_detector_detects_and_trains_as_before(detector):
    """It builds anchors and makes random choices; its first call after the probe met anchors
    without values once.
    """
    images = [torch.rand(3, 70, 90), torch.rand(3, 61, 47)]
    targets = [
        {"boxes": torch.tensor([[5.0, 7.0, 40.0, 31.0]]), "labels": torch.tensor([label])}
        for label in (1, 3)
    ]
    detector.eval()
    with torch.no_grad():
        found = detector(images)
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    losses = seeded(lambda: detector.train()(images, targets))
    detector.load_state_dict(state)

    places = insert_attention(
        detector, "cpsam", at=("backbone.body.layer3.*", "backbone.fpn.layer_blocks.0")
    )
    assert places == [
        *(f"backbone.body.layer3.{i}" for i in range(6)),
        "backbone.fpn.layer_blocks.0.0",
    ]
    assert all(module.training for module in detector.modules())
    new_losses = seeded(lambda: detector(images, targets))
    assert new_losses == losses
    sum(new_losses.values()).backward()
    assert all(parameter.grad is not None for parameter in attention_parameters(detector))

    assert remove_attention(detector) == places
    detector.load_state_dict(state)
    insert_attention(detector, "non_local", at="backbone.body.layer4.2")
    detector.eval()
    with torch.no_grad():
        again = detector(images)
    for one, other in zip(found, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    remove_attention(detector)


def test_a_detector_resizes_its_images_so_strides_are_told_by_its_backbone(detector):
    refuse(
        detector,
        "nl-c4-last",
        "'nl-c4-last' needs output strides, and this model scales its images before: insert into"
        " its backbone",
    )
    assert insert_attention(detector.backbone.body, "cpsam", at="nl-c4-last") == ["layer3.5"]
    assert remove_attention(detector) == ["backbone.body.layer3.5"]


@pytest.mark.parametrize(
    "at, message",
    [
        (
            "rpn.head.conv",
            (
                r"'rpn\.head\.conv\.0\.1': it is called 5 times in a forward, so that one block"
                r" would serve all"
            ),
        ),
        ("rpn.head", r"'rpn\.head': it returns a tuple, not one tensor"),
        ("backbone", r"'backbone': it returns a OrderedDict, not one tensor"),
        (
            "roi_heads.box_head",
            (
                r"'roi_heads\.box_head': the forward of the model stopped before it:"
                r" NotImplementedError"
            ),
        ),
    ],
)
def test_places_of_a_detector_that_cannot_work_are_refused(detector, at, message):
    refuse(detector, at, message)


def test_a_host_that_scales_all_images_to_one_size_is_entered_by_its_backbone():
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    refuse(
        model,
        "backbone.features.0.3",
        r"its channel axis is unclear, \(2, 24, 80, 80\) and \(2, 24, 80, 80\) for images",
    )
    assert insert_attention(model.backbone, "cpsam", at="features.0.3") == ["features.0.3"]


class Children(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


COLLECTORS = {
    "dense block": (lambda: densenet121(num_classes=3), "features.denseblock2", "_DenseBlock"),
    "pooling of deeplab": (
        lambda: deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3),
        "classifier.0.convs.4",
        "ASPPPooling",
    ),
    "children": (lambda: nn.Sequential(Children(), nn.ReLU()), "0", "Children"),
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Residual(nn.Conv2d(4, 4, 1), nn.ReLU())),
        "1",
        "Residual",
    ),
}


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_place_that_runs_whatever_it_holds_is_refused(name):
    """The block would run inside it, too, and a dense block would not run at all."""
    build, at, kind = COLLECTORS[name]
    with torch.device("meta"):
        model = build()
    refuse(
        model,
        at,
        f"cannot insert at '{at}': {kind} calls every module that it holds, and would call the"
        " block, too",
    )


def test_inside_a_place_that_runs_whatever_it_holds_there_are_places():
    model = nn.Sequential(Children(), Residual(nn.Conv2d(4, 4, 1), nn.ReLU()))
    assert insert_unheard(model, ("0.*", "1.1"), torch.randn(2, 3, 5, 7)) == [
        "0.first",
        "0.second",
        "1.1",
    ]


TIMM_SWIN = "swin_tiny_patch4_window7_224"
SMALL = {"embed_dim": 8, "num_heads": (1, 2), "depths": (1, 1), "num_classes": 3}
CHANNELS_LAST = {
    "torchvision": (
        lambda: SwinTransformer(patch_size=[4, 4], window_size=[7, 7], **SMALL),
        ("features.0.0", "permute"),
        ("features.0", r"'features\.0\.2'"),
    ),
    "timm": (
        lambda: timm.create_model(TIMM_SWIN, img_size=(56, 84), strict_img_size=False, **SMALL),
        ("patch_embed.proj",),
        ("layers.0", r"'layers\.0'"),
    ),
}


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_channels_last_hosts_are_refused_but_where_their_channels_come_first(name):
    build, places, (at, named) = CHANNELS_LAST[name]
    model, x = build(), torch.randn(2, 3, 56, 84)
    refuse(
        model,
        at,
        rf"{named}: its channels are the last axis, \(2, 32, 40, 8\), and attention reads \(N, C,"
        r" H, W\)",
    )
    refuse(
        model, at, rf"{named}: its channels are the last axis, \(2, 14, 21, 8\)", example_input=x
    )
    assert insert_unheard(model, places, x) == list(places)


def test_a_host_of_one_image_size_says_so():
    model = timm.create_model(TIMM_SWIN, img_size=(56, 84), **SMALL)
    refuse(
        model,
        "layers.0",
        r"stopped before it: AssertionError: Input height \(\d+\) doesn't match model \(56\)",
    )
    message = (
        r"its channel axis is unclear, because a second image size failed: AssertionError: Input"
        r" height \(88\)"
    )
    refuse(model, "layers.0", message, example_input=torch.empty(1, 3, 56, 84))


def test_a_classifier_for_training_alone_is_not_reached():
    with torch.device("meta"):
        model = googlenet(num_classes=3, aux_logits=True, init_weights=False)
    refuse(model, "aux1.conv.bn", r"'aux1\.conv\.bn': it is never called in a forward")


def thin():
    torch.manual_seed(2)
    return ThinResNet(1, 5).eval()


@pytest.mark.parametrize("how", ["beside", "in place of forward"])
@torch.no_grad()
def test_code_that_was_compiled_before_does_not_go_on_without_the_block(how):
    """It does not look for new hooks."""
    torch.compiler.reset()
    model, x = thin(), torch.randn(2, 3, 12, 20)
    if how == "beside":
        compiled = torch.compile(model, backend="eager")
    else:
        model.forward = compiled = torch.compile(model.forward, backend="eager")
    bare = compiled(x)
    assert insert_attention(model, "squeeze_excite", at="layer2.0") == ["layer2.0"]
    assert not torch.allclose(compiled(x), bare, rtol=1e-3)
    torch.testing.assert_close(compiled(x), model(x))
    remove_attention(model)
    torch.testing.assert_close(compiled(x), bare)


def test_traced_networks_have_places_where_modules_are_called():
    model = torch.fx.symbolic_trace(thin())
    refuse(model, "layer2.0", r"'layer2\.0': it is never called in a forward")
    assert insert_unheard(model, "layer2.0.bn2", torch.randn(2, 3, 12, 20)) == ["layer2.0.bn2"]


def test_parametrised_weights_stay_parametrised():
    model = thin()
    parametrizations.weight_norm(model.layer1[0].conv1)
    parametrizations.spectral_norm(model.layer2[0].conv1)
    assert insert_unheard(model, ("layer1.0.conv1", "layer2.0"), torch.randn(2, 3, 12, 20)) == [
        "layer1.0.conv1",
        "layer2.0",
    ]


def test_weights_that_wait_for_their_first_images_are_refused():
    refuse(
        nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU()),
        "0",
        "'0': the forward of the model stopped before it: .*uninitialized",
    )


class CallsForwardOfAStage(nn.Module):
    """Children of a module that is called through ``.forward()`` are called as modules, and are
    places; it is not.
    """

    def __init__(self):
        super().__init__()
        self.stage = Children()

    def forward(self, x):
        return {"features": (self.stage.forward(x), x)}


def test_only_what_is_called_as_a_module_is_a_place_whatever_the_host_returns():
    model, x = CallsForwardOfAStage(), torch.randn(2, 3, 5, 7)
    refuse(model, "stage", "'stage': it is never called in a forward")
    expected = model(x)["features"][0]
    assert insert_attention(model, "cpsam", at="stage.*") == ["stage.first", "stage.second"]
    assert torch.equal(model(x)["features"][0], expected)


def test_the_probe_does_not_run_hooks_of_the_host():
    """They may read a value, or keep what they see: meta tensors would spoil their lists."""
    model, seen = thin(), []
    for module in model.modules():
        module.register_forward_hook(lambda module, args, output: seen.append(float(output.mean())))
        module.register_forward_pre_hook(lambda module, args: seen.append(args))
    before = snapshot(model)
    with register_module_forward_hook(lambda module, args, output: seen.append(output)):
        assert insert_attention(model, "cpsam", at=("layer2.0", "layer1.0.bn1")) == [
            "layer1.0.bn1",
            "layer2.0",
        ]
        assert seen == []
        with torch.no_grad():
            model(torch.randn(2, 3, 12, 20))
        assert seen
    remove_attention(model)
    assert snapshot(model) == before


def test_the_probe_does_not_hear_another_thread():
    """Its hooks are global, and others may run networks of their own meanwhile."""

    class Concurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.others = [nn.Linear(3, 4)]

        def forward(self, x):
            thread = threading.Thread(target=self.others[0], args=(torch.zeros(1, 3),))
            thread.start()
            thread.join()
            return self.conv(x)

    assert insert_attention(Concurrent(), "cpsam", at="conv") == ["conv"]


def test_hooks_of_torch_that_make_a_weight_run_in_the_probe():
    model = thin()
    with pytest.warns(FutureWarning):
        utils.weight_norm(model.layer1[0].conv1)
    utils.spectral_norm(model.layer2[0].conv1)
    prune.l1_unstructured(model.layer2[0].conv2, "weight", 0.5)
    places = ["layer1.0", "layer2.0"]
    assert insert_unheard(model, places, torch.randn(2, 3, 12, 20)) == places
