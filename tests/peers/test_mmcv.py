"""Non-Local and context blocks of mmcv: equal where they are right, and where they are not, how."""

from itertools import product

import pytest
import torch
from mmcv.cnn import ContextBlock, NonLocal2d
from support.peer_layers import C, different, images, ours, same, with_weights_of

from cpsam.attention import GlobalContext, NonLocal

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def non_local(mode, subsample=False, norm="batch", scaled=False):
    block = ours(NonLocal, mode=mode, subsample=subsample, norm=norm, scaled=scaled)
    peer = NonLocal2d(
        C,
        mode=mode,
        sub_sample=subsample,
        use_scale=scaled,
        norm_cfg={"type": "BN"} if norm == "batch" else None,
    )
    names = {"query": "theta.conv", "proj": "conv_out.conv", "post_norm": "conv_out.bn"}
    names |= (
        {"value": "g.0.conv", "key": "phi.0.conv"}
        if subsample
        else {"value": "g.conv", "key": "phi.conv"}
    )
    state = {
        f"{names[name.split('.')[0]]}.{name.split('.')[1]}": t
        for name, t in block.state_dict().items()
        if "attend" not in name
    }
    if mode == "concatenation":
        halves = [block.attend.query_logits.weight, block.attend.key_logits.weight]
        state["concat_project.conv.weight"] = torch.cat(halves, 1).detach()
    if norm == "batch":  # whose shift makes a bias before it idle; mmcv has none
        block.proj.bias.data.zero_()
        del state["conv_out.conv.bias"]
    peer.double().eval().load_state_dict(state)
    return block, peer


@pytest.mark.parametrize(
    "mode, subsample, norm", [*product(MODES, (False, True), ("batch", "none"))]
)
def test_non_local_in_all_modes(mode, subsample, norm):
    block, peer = non_local(mode, subsample, norm)
    same(block, peer, images(2, C, 6, 8) if subsample else images())


def test_non_local_scaled():
    block, peer = non_local("embedded_gaussian", scaled=True)
    same(block, peer, images())
    different(ours(NonLocal), peer, images())


def test_mmcv_does_not_scale_the_gaussian_that_it_is_asked_to_scale():
    _, peer = non_local("gaussian", scaled=True)
    block, _ = non_local("gaussian", scaled=False)
    assert peer.use_scale
    same(block, peer, images())
    different(non_local("gaussian", scaled=True)[0], peer, images())


def test_mmcv_leaves_an_odd_edge_out_when_it_subsamples():
    """No other position ever hears of the last row."""
    block, peer = non_local("embedded_gaussian", subsample=True)
    x = images()
    changed = x.clone()
    changed[:, :, -1] += 1
    with torch.no_grad():
        ours_moved, theirs_moved = (
            (module(changed) - module(x))[:, :, :-1].abs().max() for module in (block, peer)
        )
    assert theirs_moved == 0 and ours_moved > 1e-3


CONTEXT = {
    "key": "conv_mask",
    "squeeze": "channel_add_conv.0",
    "norm": "channel_add_conv.1",
    "expand": "channel_add_conv.3",
}


def test_the_context_block_that_adds_what_attention_pools():
    block = ours(GlobalContext, reduction=2)
    same(block, with_weights_of(block, ContextBlock(C, ratio=1 / 2), CONTEXT), images())


def test_the_context_block_that_adds_the_average():
    """It is ours with a map that is flat."""
    block = ours(GlobalContext, reduction=2)
    for parameter in block.key.parameters():
        parameter.data.zero_()
    peer = ContextBlock(C, ratio=1 / 2, pooling_type="avg").double()
    state = with_weights_of(block, ContextBlock(C, ratio=1 / 2), CONTEXT).state_dict()
    peer.load_state_dict(
        {name: tensor for name, tensor in state.items() if "conv_mask" not in name}
    )
    same(block, peer, images())


@pytest.mark.parametrize(
    "fusion, start",
    [(("channel_add",), 1), (("channel_mul",), 0.5), (("channel_mul", "channel_add"), 0.5)],
)
def test_a_context_block_that_multiplies_halves_its_features_at_the_start(fusion, start):
    x = images()
    with torch.no_grad():
        assert torch.equal(ContextBlock(C, ratio=1 / 2, fusion_types=fusion).double()(x), start * x)
        assert torch.equal(GlobalContext(C).double()(x), x)


def test_a_published_ratio_makes_a_context_block_of_few_channels_blind():
    """Its bottleneck has one channel, and a layer norm over one value returns its bias."""
    block = ours(GlobalContext)
    peer = ContextBlock(C, ratio=1 / 16).double()
    torch.nn.init.ones_(peer.channel_add_conv[3].weight)
    with torch.no_grad():
        added = [[module(x) - x for x in (images(), 3 * images() + 1)] for module in (block, peer)]
    assert (added[0][0] - added[0][1]).abs().max() > 0.1
    torch.testing.assert_close(*added[1], rtol=0, atol=1e-12)
