"""Named placements against what they do in a real forward: zeros at a place on the trunk make all
images alike.

This knows nothing of how places are found.
"""

import pytest
import timm
import torch
import torchvision
from support.oracle import is_a_branch, is_on_the_trunk, outputs, with_random_numbers
from torch import nn

from cpsam.errors import UserError
from cpsam.insert.placement import resolve
from cpsam.insert.probe import probe
from cpsam.models.cifar_resnet import cifar_resnet

ON_THE_TRUNK = ("before-last", "stage-ends", "early", "nl-c4-last")


def host(name):
    """A network in eval mode with random numbers everywhere, also where training starts at zero."""
    library, _, model = name.partition("/")
    with torch.device("meta"):
        if library == "cifar":
            network = cifar_resnet(model, 10)
        else:
            network = (
                timm.create_model(model)
                if library == "timm"
                else torchvision.models.get_model(model, weights=None)
            )
    return with_random_numbers(network.to_empty(device="cpu"))


def trunk_places(network):
    seen, found = probe(network), {}
    for at in ON_THE_TRUNK:
        try:
            found |= dict.fromkeys(resolve(network, at, seen))
        except UserError:  # A network may have no such stage.
            continue
    return list(found)


TRUNKS = (
    "cifar/resnet20",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
    "torchvision/mnasnet0_5",
    "timm/resnet10t",
    "timm/skresnet18",
    "timm/regnetx_002",
    "timm/ghostnetv2_100",
    "timm/convnext_atto",
    "timm/dla46_c",
    "timm/rexnet_100",
    "timm/ese_vovnet19b_slim_dw",
    "timm/hgnetv2_b0",
    "timm/cs3darknet_focus_s",
    "timm/edgenext_xx_small",
    "timm/legacy_xception",
)


@pytest.mark.parametrize("name", TRUNKS)
def test_nothing_bypasses_a_place_on_the_trunk(name):
    network = host(name)
    assert not torch.equal(*outputs(network))
    places = trunk_places(network)
    assert len(places) > 2
    assert [path for path in places if not is_on_the_trunk(network, path)] == []


def test_the_layers_of_a_dense_block_are_bypassed_by_design():
    """Later layers read what earlier ones were given, so no module but the whole block is on the
    trunk, and it runs what it holds.
    """
    network = host("torchvision/densenet121")
    assert [path for path in trunk_places(network) if is_on_the_trunk(network, path)] == []


@pytest.mark.parametrize(
    "name", ["cifar/resnet20", "timm/resnet10t", "timm/regnetx_002", "timm/cs3darknet_focus_s"]
)
def test_a_branch_has_a_shortcut_beside_it_and_is_used(name):
    network = host(name)
    places, whole = resolve(network, "every-branch", probe(network)), outputs(network)
    assert [path for path in places if not is_a_branch(network, path, whole)] == []


def test_these_checks_see_wrong_places():
    network = host("timm/resnet10t")
    for path in ("layer2.0.bn2", "layer2.0.downsample.2"):
        assert not is_on_the_trunk(network, path)
    network.unused, whole = nn.Identity(), outputs(network)
    for path in ("layer2.0", "unused"):
        assert not is_a_branch(network, path, whole)
