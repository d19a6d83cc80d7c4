"""State dicts that were saved when the fusing convolution was named `fuse` load by every way, and timm does not call it any more."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cpsam import insert_attention
from cpsam.attention import ATTENTION, CPSAM, ConstantGate
from cpsam.attention.old_names import current_key
from cpsam.checkpoint import save_weights
from cpsam.models import create_model, load_pretrained
from cpsam.testing import randomise
from cpsam.train.state import pack, unpack

C = 8
BLOCKS = [CPSAM, ConstantGate]


class Host(nn.Module):
    """A host that has a `fuse` of its own, with a block inside it."""

    def __init__(self, cls, norm="batch"):
        super().__init__()
        self.fuse = nn.Sequential(nn.Conv2d(C, C, 1), cls(C, norm=norm))

    def forward(self, x):
        return self.fuse(x)


def as_before(state):
    """The state under the names of before."""
    return {key.replace("fusing_conv.", "fuse."): tensor for key, tensor in state.items()}


def assert_same(state, other):
    assert state.keys() == other.keys()
    assert all(torch.equal(tensor, other[key]) for key, tensor in state.items())


@pytest.mark.parametrize("clone", [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
@pytest.mark.parametrize("make", [lambda cls: cls(C, fusion="grouped"), Host, lambda cls: AveragedModel(Host(cls))])
@pytest.mark.parametrize("cls", BLOCKS)
def test_a_state_dict_of_before_loads_strictly(cls, make, clone):
    saved = randomise(make(cls)).state_dict()
    old = as_before(saved)
    before = dict(old)
    model = clone(make(cls))
    assert not any((result := model.load_state_dict(old)).missing_keys) and not result.unexpected_keys
    assert_same(model.state_dict(), saved)
    assert_same(old, before)  # the caller's


def test_a_key_under_both_names_is_refused():
    state = CPSAM(C).state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*fuse\.conv\.weight"):
        CPSAM(C).load_state_dict(state | {"fuse.conv.weight": torch.zeros(C, 1, 3, 3)})


@pytest.mark.parametrize("cls", BLOCKS)
def test_a_checkpoint_of_before_is_unpacked(cls):
    model = randomise(Host(cls))
    average, optimizer = randomise(Host(cls), 1), torch.optim.AdamW(model.parameters())
    model(torch.randn(2, C, 3, 4)).sum().backward()
    optimizer.step()
    tensors, meta = pack(model, average, optimizer)
    other, other_average = Host(cls), Host(cls)
    unpack(as_before(tensors), meta, other, other_average, torch.optim.AdamW(other.parameters()))
    assert_same(other.state_dict(), model.state_dict())
    assert_same(other_average.state_dict(), average.state_dict())


def test_weights_of_before_are_loaded_with_their_blocks(tmp_path):
    saved = randomise(create_model("resnet20", 7, attention="cpsam", at="layer1.0")).state_dict()
    save_weights(tmp_path / "weights.safetensors", as_before(saved), {})
    model = create_model("resnet20", 7, attention="cpsam", at="layer1.0")
    assert load_pretrained(model, tmp_path / "weights.safetensors", 7) == []
    assert_same(model.state_dict(), saved)


def test_only_the_last_name_of_a_key_is_the_blocks():
    assert current_key("fuse.1.fuse.conv.weight") == "fuse.1.fusing_conv.conv.weight"
    assert current_key("defuse.conv.weight") == "defuse.conv.weight"


@pytest.mark.parametrize("name", ATTENTION)
def test_no_layer_has_a_name_that_timm_calls(name):
    block = ATTENTION[name](C, **({"hidden_channels": 8} if name == "conv_control" else {}))
    for _, module in block.named_modules():
        assert not [each for each in ("fuse", "reparameterize", "switch_to_deploy") if hasattr(module, each)]


def test_a_network_with_a_block_is_reparameterized():
    from timm.utils import reparameterize_model

    host = nn.Sequential(nn.Conv2d(3, C, 3)).eval()
    insert_attention(host, "cpsam", "0", example_input=torch.zeros(1, 3, 9, 9))
    randomise(host)
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(reparameterize_model(host)(x), host(x))
