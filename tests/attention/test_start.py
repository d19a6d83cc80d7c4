"""A new block is the identity, in whatever order and however late its layers are reset."""

import copy
import pickle
import random

import pytest
import torch
from support.variants import CONFIGURATIONS, label
from torch import nn

from cpsam import insert_attention
from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START
from cpsam.testing import randomise

C = 24
IDENTITIES = [
    (name, arguments) for name, arguments in CONFIGURATIONS if name not in NOT_IDENTITY_AT_START
]
ORDERS = {
    "parents first": lambda modules: modules,
    "children first": lambda modules: modules[::-1],
    "shuffled": lambda modules: random.Random(3).sample(modules, len(modules)),
}


def reset(block, order):
    for module in ORDERS[order](list(block.modules())):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def assert_identity(block):
    x = torch.randn(2, C, 5, 7)
    for mode in (True, False):
        assert torch.equal(block.train(mode)(x), x)


@pytest.mark.parametrize("name, arguments", IDENTITIES, ids=label)
def test_a_block_that_is_reset_is_the_identity(name, arguments):
    for order in ORDERS:
        block = randomise(ATTENTION[name](C, **arguments))
        reset(block, order)
        assert_identity(block)


@pytest.mark.parametrize("name, arguments", CONFIGURATIONS, ids=label)
def test_a_block_from_the_meta_device_starts_like_a_new_block(name, arguments):
    new = ATTENTION[name](C, **arguments).state_dict()
    for order in ORDERS:
        block = ATTENTION[name](C, **arguments, device="meta").to_empty(device="cpu")
        for tensor in block.state_dict().values():
            tensor.fill_(77)
        reset(block, order)
        assert block.state_dict().keys() == new.keys()
        for key, tensor in block.state_dict().items():
            constant = new[key].numel() > 1 and new[key].unique().numel() == 1
            assert torch.equal(tensor, new[key]) if constant else not (tensor == 77).any(), key


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])  # noqa: S301
@pytest.mark.parametrize(
    "name, arguments", [each for each in IDENTITIES if each[1] in ({}, {"norm": "none"})], ids=label
)
def test_a_copy_resets_itself_and_not_its_original(name, arguments, clone):
    block = randomise(ATTENTION[name](C, **arguments))
    before, other = copy.deepcopy(block.state_dict()), clone(block)
    reset(other, "parents first")
    assert_identity(other)
    assert all(torch.equal(tensor, before[key]) for key, tensor in block.state_dict().items())


@pytest.mark.parametrize("name, arguments", CONFIGURATIONS, ids=label)
def test_every_layer_with_tensors_of_its_own_can_be_reset(name, arguments):
    """Tools that create weights late call `reset_parameters` of each module that holds tensors
    itself.
    """
    for path, module in ATTENTION[name](C, **arguments).named_modules():
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            assert callable(getattr(module, "reset_parameters", None)), path


@pytest.mark.filterwarnings("ignore:.*NO_SHARD.*:UserWarning", "ignore:FSDP.*:UserWarning")
@pytest.mark.parametrize("name", [name for name in ATTENTION if name not in NOT_IDENTITY_AT_START])
def test_a_host_that_fsdp_creates_from_the_meta_device_starts_with_identities(name):
    from torch.distributed.fsdp import FullyShardedDataParallel

    required = {"hidden_channels": 8} if name == "conv_control" else {}
    with torch.device("meta"):
        host = nn.Sequential(nn.Conv2d(3, C, 3, padding=1))
    insert_attention(host, lambda channels: ATTENTION[name](channels, **required), "0")
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        sharded = FullyShardedDataParallel(
            host, device_id=torch.device("cpu"), use_orig_params=True
        )
        with FullyShardedDataParallel.summon_full_params(sharded), torch.no_grad():
            assert_identity(sharded.module[0].attention[0])
    finally:
        torch.distributed.destroy_process_group()
