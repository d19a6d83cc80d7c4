"""Detectors of ultralytics keep every block through their own `fuse()`; their trainer is
warned of.
"""

import copy

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

from cpsam.errors import UserError
from cpsam.insert import attention_config, attention_parameters, insert_attention
from cpsam.testing import randomise

# By name: the class, and the number of places of every-branch.
MODELS = {
    "yolo11n": ("DetectionModel", 6),
    "yolov8n-cls": ("ClassificationModel", 6),
    "rtdetr-resnet50": ("RTDETRDetectionModel", 16),
}
PLACES = ["before-last", "every-branch", ("model.4", "model.6")]


def first_tensor(output):
    return output if isinstance(output, torch.Tensor) else first_tensor(output[0])


def norms(network):
    return [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and ".attention." not in path
    ]


@pytest.mark.parametrize("at", PLACES, ids=str)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_fusing_keeps_every_block(name, at):
    kind, branches = MODELS[name]
    torch.manual_seed(0)
    model, x = getattr(tasks, kind)(f"{name}.yaml", verbose=False).eval(), torch.randn(1, 3, 64, 96)
    bare, fused_bare = first_tensor(model(x)), copy.deepcopy(model).fuse(verbose=False)
    with pytest.warns(UserWarning, match=f"a trainer that rebuilds {kind} from its `yaml`"):
        found = insert_attention(model, "cpsam", at=at)
    assert torch.equal(first_tensor(model(x)), bare)
    assert len(found) == {"before-last": 3, "every-branch": branches}.get(at, 2)
    for path in found:
        randomise(model.get_submodule(path).attention)
    expected, config = first_tensor(model(x)), attention_config(model)
    assert not torch.allclose(expected, bare)
    fused = copy.deepcopy(model).fuse(verbose=False)
    assert norms(fused) == norms(fused_bare) != norms(model)
    assert attention_config(fused) == config and [entry["at"] for entry in config] == found
    torch.testing.assert_close(
        first_tensor(fused(x)), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item()
    )
    with torch.enable_grad():
        first_tensor(fused.requires_grad_()(x)).sum().backward()
    assert all(p.grad is not None for p in attention_parameters(fused))


def test_a_norm_that_fusing_deletes_is_refused_loudly():
    model = tasks.DetectionModel("yolo11n.yaml", verbose=False).eval()
    with pytest.warns(UserWarning, match="a trainer that rebuilds"):
        insert_attention(model, "cpsam", at="model.0.bn")
    with pytest.raises(
        UserError,
        match=r"cannot take 'bn' away: attention is inserted there; .* or insert at its parent",
    ):
        model.fuse(verbose=False)
