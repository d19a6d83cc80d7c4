"""Tools that replace, fold, freeze or quantise layers keep every block: listed, heard, trained, and
in its place.
"""

import copy
import pickle
from functools import cache
from itertools import pairwise

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d, unfreeze_batch_norm_2d
from timm.utils.model import reparameterize_model
from torch import nn
from torch.ao import quantization
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2, resnet18

from cpsam.insert import attention_config, attention_parameters, insert_attention, remove_attention
from cpsam.models.cifar_resnet import ThinResNet
from cpsam.testing import randomise


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.BatchNorm2d(6),
    )


HOSTS = {
    "plain": (plain, ("1", "4")),
    "thin": (lambda: ThinResNet(2, 5), ("every-branch", "before-last", "bn1")),
    "resnet18": (
        lambda: resnet18(num_classes=5),
        ("every-branch", "before-last", "layer3.0.downsample"),
    ),
    "mobilenet_v2": (lambda: mobilenet_v2(num_classes=5), ("features.*.conv.3", "stage-ends")),
    "timm/resnet10t": (
        lambda: timm.create_model("resnet10t", num_classes=5, zero_init_last=False),
        ("layer*.*.bn2", "maxpool"),
    ),
    "timm/repvgg_a0": (
        lambda: timm.create_model("repvgg_a0", num_classes=5),
        ("stages.2.*", "stages.3.0.act"),
    ),
    "timm/test_efficientnet": (
        lambda: timm.create_model("test_efficientnet", num_classes=5),
        ("blocks.*.0.bn3", "blocks.*.0.bn2", "conv_head"),
    ),
}


def pairs(model):
    """The paths of a convolution and the norm that follows it as the next child, as fusion by hand
    takes them.
    """
    found = []
    for path, module in model.named_modules():
        children = [
            (name, child)
            for name, child in module.named_children()
            if ".attention" not in f".{path}.{name}"
        ]
        for (first, conv), (second, norm) in pairwise(children):
            if (
                isinstance(conv, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and conv.out_channels == norm.num_features
            ):
                found.append([f"{path}.{name}".lstrip(".") for name in (first, second)])
    return found


def fuse_by_hand(model):
    for path, norm in pairs(model):
        parent, _, name = path.rpartition(".")
        setattr(
            model.get_submodule(parent),
            name,
            fuse_conv_bn_eval(model.get_submodule(path), model.get_submodule(norm)),
        )
        parent, _, name = norm.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())
    return model


def fuse_in_place_of_the_dict(model):
    """As mmcv does it."""
    for path, norm in pairs(model):
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = fuse_conv_bn_eval(
            model.get_submodule(path), model.get_submodule(norm)
        )
        parent, _, name = norm.rpartition(".")
        model.get_submodule(parent)._modules[name] = nn.Identity()
    return model


TOOLS = {
    "torch SyncBatchNorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "timm SyncBatchNorm": convert_sync_batchnorm,
    "frozen": freeze_batch_norm_2d,
    "frozen and thawed": lambda model: unfreeze_batch_norm_2d(freeze_batch_norm_2d(model)),
    "fx fuse": fuse,
    "fx trace, then SyncBatchNorm": lambda model: convert_sync_batchnorm(
        torch.fx.symbolic_trace(model)
    ),
    "fuse_modules": lambda model: quantization.fuse_modules(model, pairs(model)),
    "fuse_modules_qat": lambda model: quantization.fuse_modules_qat(model.train(), pairs(model)),
    "by hand": fuse_by_hand,
    "by hand in the dict": fuse_in_place_of_the_dict,
    "reparameterize": reparameterize_model,
    "pickle, then SyncBatchNorm": lambda model: convert_sync_batchnorm(
        pickle.loads(pickle.dumps(model))  # noqa: S301
    ),
}


# Torch's own tools take timm's norm with an activation for a bare norm, or refuse it.
TIMM_NORMS = {"timm/repvgg_a0", "timm/test_efficientnet"}
OF_TORCH = {
    "torch SyncBatchNorm",
    "fuse_modules",
    "fuse_modules_qat",
    "by hand",
    "by hand in the dict",
}


@cache
def trained(name, block="cpsam"):
    """A host with blocks that are heard, with images, what it makes of them, and its
    configuration.
    """
    build, at = HOSTS[name]
    torch.manual_seed(0)
    model, x = build().eval().double(), torch.randn(2, 3, 37, 52).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                randomise(module)
        bare = model(x)
    insert_attention(model, "squeeze_excite", at=at)
    insert_attention(model, block, at=at[0])
    for entry in attention_config(model):
        randomise(model.get_submodule(entry["at"]).attention)
    with torch.no_grad():
        expected = model(x)
        assert (expected - bare).abs().max() > 1e-2 * bare.abs().max()
    return model, x, expected, attention_config(model)


def assert_kept(after, x, expected, config, trains=True):
    """The same blocks are listed, the output is the same, and a step of training reaches them."""
    assert attention_config(after.eval()) == config
    output = after(x)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    output.square().sum().backward()
    blocks = list(attention_parameters(after))
    assert blocks and {id(p) for p in blocks} <= {id(p) for p in after.parameters()}
    assert not trains or all(p.grad is not None for p in blocks)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", HOSTS)
def test_tools_keep_every_block(name, tool):
    if name in TIMM_NORMS and tool in OF_TORCH:
        pytest.skip("the tool changes the bare host, too")
    # reparameterize_model calls whatever is named `fuse`, as the fusing convolution of CPSAM is.
    model, x, expected, config = trained(
        name, "global_context" if tool == "reparameterize" else "cpsam"
    )
    after = TOOLS[tool](copy.deepcopy(model))
    # which detaches what it leaves
    assert_kept(after, x, expected, config, trains=tool != "reparameterize")
    assert len(remove_attention(after)) == len({entry["at"] for entry in config})
    with torch.no_grad():
        assert not torch.allclose(after(x), expected)
