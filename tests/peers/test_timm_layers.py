"""Attention layers of timm: equal where they are right, and where they are not, how."""

import pytest
import timm
import torch
from support.peer_layers import C, different, images, ours, same, with_weights_of
from timm.layers import EcaModule, GlobalContext, NonLocalAttn, SEModule, create_attn
from timm.layers.cbam import CbamModule

import cpsam.attention as blocks
from cpsam.insert import insert_attention

NON_LOCAL = {"query": "t", "key": "p", "value": "g", "proj": "z", "post_norm": "norm"}
CONTEXT = {
    "key": "conv_attn",
    "squeeze": "mlp_add.fc1",
    "norm": "mlp_add.norm",
    "expand": "mlp_add.fc2",
}


def test_squeeze_excite():
    block = ours(blocks.SqueezeExcite, reduction=2)
    same(
        block,
        with_weights_of(block, SEModule(C, rd_channels=12), {"squeeze": "fc1", "expand": "fc2"}),
        images(),
    )


def test_cbam():
    block = ours(blocks.CBAM, reduction=2)
    names = {
        "squeeze": "channel.fc1",
        "expand": "channel.fc2",
        "spatial": "spatial.conv.conv",
        "norm": "spatial.conv.bn",
    }
    same(
        block, with_weights_of(block, CbamModule(C, rd_channels=12, mlp_bias=True), names), images()
    )


def test_eca():
    block = ours(blocks.ECA)
    same(block, with_weights_of(block, EcaModule(C), {"conv": "conv"}), images())


@pytest.mark.parametrize("channels", [8, 64, 128, 256, 512, 1024, 2048])
def test_eca_takes_the_same_kernel(channels):
    assert blocks.ECA(channels).kernel_size == EcaModule(channels).conv.kernel_size[0]


def test_eca_of_timm_ignores_the_kernel_that_it_is_given():
    assert EcaModule(64, kernel_size=7).conv.kernel_size == (3,)
    assert blocks.ECA(64, kernel_size=7).conv.kernel_size == (7,)


def test_global_context_that_adds():
    block = ours(blocks.GlobalContext, reduction=2)
    peer = GlobalContext(C, fuse_add=True, fuse_scale=False, rd_channels=12)
    # ours is the one of the published code
    assert (block.norm.eps, peer.mlp_add.norm.eps) == (1e-5, 1e-6)
    peer.mlp_add.norm.eps = 1e-5
    same(block, with_weights_of(block, peer, CONTEXT), images())


def test_global_context_of_timm_stores_how_it_should_start_and_never_reads_it():
    started = []
    for last_zero in (False, True):
        torch.manual_seed(0)
        peer = GlobalContext(C, fuse_add=True, init_last_zero=last_zero)
        assert peer.init_last_zero is last_zero
        started.append(peer.state_dict())
    assert all(torch.equal(tensor, started[1][name]) for name, tensor in started[0].items())
    assert started[1]["mlp_scale.fc2.weight"].any() and started[1]["mlp_add.fc2.bias"].any()


def test_a_new_global_context_of_timm_is_not_the_identity_even_where_it_adds():
    """The weight of its last layer is zero, and the bias is not."""
    x = images()
    with torch.no_grad():
        assert (
            GlobalContext(C, fuse_add=True, fuse_scale=False).double()(x) - x
        ).abs().max() > 1e-2
        assert torch.equal(blocks.GlobalContext(C).double()(x), x)


def test_gc_of_timm_multiplies_and_gca_is_the_one_of_the_paper():
    gc, gca = create_attn("gc", C), create_attn("gca", C)
    assert gc.mlp_add is None and gc.mlp_scale is not None
    assert gca.mlp_add is not None and gca.mlp_scale is None


def test_non_local_without_a_scale():
    block = ours(blocks.NonLocal)
    same(
        block,
        with_weights_of(block, NonLocalAttn(C, use_scale=False, rd_channels=12), NON_LOCAL),
        images(),
    )


def test_non_local_of_timm_scales_by_the_channels_though_the_product_runs_over_the_inner_width():
    block = ours(blocks.NonLocal, scaled=True)
    peer = with_weights_of(block, NonLocalAttn(C, rd_channels=12), NON_LOCAL)
    assert block.attend.scale == 12**-0.5 and peer.scale == C**-0.5
    different(block, peer, images())
    block.attend.scale = C**-0.5
    same(block, peer, images())


def test_non_local_of_timm_swallows_arguments_that_it_does_not_have():
    NonLocalAttn(C, no_such_argument=1)
    with pytest.raises(TypeError, match="no_such_argument"):
        blocks.NonLocal(C, no_such_argument=1)


def test_attention_of_timm_goes_into_every_block_and_its_network_no_longer_takes_the_weights():
    plain = timm.create_model("resnet18")
    full = timm.create_model("resnet18", block_args={"attn_layer": "gca"})
    assert sum(isinstance(module, GlobalContext) for module in full.modules()) == 8
    with pytest.raises(RuntimeError, match="Missing key"):
        full.load_state_dict(plain.state_dict())
    ours = timm.create_model("resnet18")
    assert insert_attention(ours, "global_context", at="layer3.1") == ["layer3.1"]
    found = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys and all(
        key.startswith("layer3.1.attention.") for key in found.missing_keys
    )
