"""Detectors of LibreYOLO: named placements stay in the backbone, and new blocks change nothing,
learn, and survive fusing.
"""

import copy
from functools import partial

import pytest
import torch
from libreyolo import LibreYOLO9, LibreYOLOX
from libreyolo.models.ppyoloe.nn import LibrePPYOLOEModel
from libreyolo.models.rtdetr.nn import RTDETRModel
from libreyolo.models.rtmdet.nn import LibreRTMDetModel
from libreyolo.models.yolo9.nn import LibreYOLO9Model
from libreyolo.models.yolonas.nn import LibreYOLONASModel
from libreyolo.models.yolox.nn import LibreYOLOXModel
from support.oracle import is_a_branch, is_on_the_trunk, outputs, with_random_numbers
from torch import nn
from torch.utils._pytree import tree_leaves

from cpsam.errors import UserError
from cpsam.insert import attention_config, attention_parameters, insert_attention
from cpsam.testing import randomise

yolox, yolo9, rtmdet = (
    partial(LibreYOLOXModel, "n"),
    partial(LibreYOLO9Model, "t"),
    partial(LibreRTMDetModel, "t"),
)
rtdetr = partial(RTDETRModel, num_queries=30)


ROWS = [
    (yolox, "before-last", ["dark2.1", "dark3.1", "dark4.1"]),
    (yolox, "stage-ends", ["dark3.1", "dark4.1", "dark5.2"]),
    (
        yolox,
        "every-branch",
        [
            "dark2.1.m.0.conv2",
            *(f"dark{stage}.1.m.{i}.conv2" for stage in (3, 4) for i in range(3)),
            "dark5.2.conv3",
        ],
    ),
    (yolo9, "before-last", ["elan2", "elan3"]),
    (yolo9, "stage-ends", ["elan3", "elan4"]),
    (
        yolo9,
        "every-branch",
        [
            f"elan{stage}.cv{i}.0.m.{block}.cv2"
            for stage in (2, 3, 4)
            for i in (2, 3)
            for block in range(3)
        ],
    ),
    (
        rtmdet,
        "every-branch",
        [
            "stage1.1.blocks.0.conv2",
            "stage2.1.blocks.0.conv2",
            "stage3.1.blocks.0.conv2",
            "stage4.2.final_conv",
        ],
    ),
    (rtdetr, "before-last", [f"res_layers.{stage}.blocks.0" for stage in (1, 2, 3)]),
    (rtdetr, "stage-ends", [f"res_layers.{stage}.blocks.1" for stage in (1, 2, 3)]),
    (
        rtdetr,
        "every-branch",
        [f"res_layers.{stage}.blocks.{i}.branch2b" for stage in range(4) for i in range(2)],
    ),
]


class Deepest(nn.Module):
    """A backbone without the maps that it hands to a neck before its last."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.whole = backbone

    def forward(self, x):
        return tree_leaves(self.whole(x))[-1]


def path_of_backbone(build):
    return "backbone.backbone" if build is yolox else "backbone"


def tensors(output):
    return torch.cat(
        [leaf.flatten() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    )


@pytest.mark.parametrize("build, at, paths", ROWS)
def test_blocks_go_into_the_backbone_and_change_nothing_when_new(build, at, paths):
    torch.manual_seed(0)
    network, x = build().eval(), torch.randn(1, 3, 64, 96)
    paths = [f"{path_of_backbone(build)}.{path}" for path in paths]
    with torch.no_grad():
        bare = tensors(network(x))
        assert insert_attention(network, "cpsam", at=at) == paths
        assert torch.equal(tensors(network(x)), bare)
    for path in paths:
        randomise(network.get_submodule(path).attention)
    heard = tensors(network(x))
    assert not torch.allclose(heard, bare)
    heard.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in attention_parameters(network))


@pytest.mark.parametrize("build, at, paths", ROWS)
def test_a_backbone_without_a_place_shows_what_it_is(build, at, paths):
    """Zeros on the trunk make all images alike in the deepest feature; zeros at the end of a branch
    do not.
    """
    backbone = Deepest(with_random_numbers(build().get_submodule(path_of_backbone(build))))
    whole = outputs(backbone)
    assert not torch.equal(*whole)
    for path in paths:
        # The last block of two of these has no shortcut, and its branch ends where the block does.
        if at == "every-branch" and path not in ("dark5.2.conv3", "stage4.2.final_conv"):
            assert is_a_branch(backbone, f"whole.{path}", whole)
        else:
            assert is_on_the_trunk(backbone, f"whole.{path}")


FUSING = [
    (yolo9, "every-branch", "fuse"),
    (yolo9, "stage-ends", "fuse"),
    (LibreYOLONASModel, "before-last", "fuse_reparam"),
]
FUSING += [(LibrePPYOLOEModel, at, "fuse_reparam") for at in ("stage-ends", "every-branch")]


@pytest.mark.parametrize("build, at, fuse", FUSING)
@torch.no_grad()
def test_fusing_keeps_every_block(build, at, fuse):
    torch.manual_seed(0)
    network, x = build().eval(), torch.randn(1, 3, 64, 96)
    bare = tensors(network.backbone(x))
    found = insert_attention(network, "cpsam", at=at)
    assert all(path.startswith("backbone.") for path in found)
    for path in found:
        randomise(network.get_submodule(path).attention)
    expected, fused = tensors(network.backbone(x)), copy.deepcopy(network)
    getattr(fused, fuse)()
    assert len(list(fused.modules())) < len(list(network.modules()))
    assert [entry["at"] for entry in attention_config(fused)] == found
    scale = expected.abs().max().item()
    assert not torch.allclose(expected, bare, rtol=0, atol=0.01 * scale)
    torch.testing.assert_close(tensors(fused.backbone(x)), expected, rtol=1e-3, atol=1e-4 * scale)


def test_a_block_whose_own_attribute_is_called_attention_is_no_place():
    with pytest.raises(
        UserError, match=r"'backbone.stage1.1': CSPLayer has an attribute 'attention' of its own"
    ):
        insert_attention(rtmdet(), "cpsam", at="before-last")
    assert len(insert_attention(rtmdet(), "cpsam", at="backbone.*.*.final_conv")) == 4


def test_concatenation_alone_is_no_branch():
    for build, reason in (
        (partial(LibreYOLO9Model, "c"), "joins its paths by concatenation alone"),
        (LibreYOLONASModel, "adds nothing"),
    ):
        with pytest.raises(UserError, match=f"finds no branch in .*{reason}"):
            insert_attention(build(), "cpsam", at="every-branch")


@pytest.mark.parametrize("wrapper, size, kept", [(LibreYOLOX, "n", 0), (LibreYOLO9, "t", 2)])
def test_training_on_other_classes_may_build_a_bare_network(wrapper, size, kept):
    """The trainer calls this where the data have another number of classes; with the right
    `nb_classes` nothing is built anew.
    """
    detector = wrapper(None, size=size, device="cpu")
    insert_attention(detector.model, "cpsam", at="stage-ends")
    detector._rebuild_for_new_classes(7)
    assert len(attention_config(detector.model)) == kept
