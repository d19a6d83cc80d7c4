"""Laws that hold for some blocks only, with random parameters in float64."""

from itertools import product

import pytest
import torch
from support.variants import MODES, label

from cpsam.attention import (
    ATTENTION,
    CPSAM,
    BareFusion,
    ChannelSqueezeAttention,
    ConstantGate,
    ConvControl,
    NonLocal,
    PositionSqueezeAttention,
)
from cpsam.testing import randomise

C, H, W = 24, 5, 7
FUSIONS = ("sum", "concat", "depthwise", "grouped")


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def images(*shape):
    return torch.randn(*(shape or (2, C, H, W)), dtype=torch.float64)


def block(cls, *args, **arguments):
    return randomise(cls(*args or (C,), **arguments)).double().eval()


def bare_twin(full):
    """The control with the weights that are left of a CPSAM when it has no attention."""
    twin = BareFusion(C, fusion=full.fusion, norm=full.norm).double().eval()
    twin.conv.weight.copy_(full.fuse.conv.weight[:, : twin.conv.weight.shape[1]])
    twin.post_norm.load_state_dict(full.post_norm.state_dict())
    return twin


@pytest.mark.parametrize(
    "interaction, fusion, norm", [*product(("mlp", "affinity"), FUSIONS, ("batch", "none"))]
)
def test_cpsam_with_gate_one_and_context_zero_is_the_bare_fusion(interaction, fusion, norm):
    full, x = block(CPSAM, interaction=interaction, fusion=fusion, norm=norm), images()
    twin = bare_twin(full)
    assert (full(x) - twin(x)).abs().max() > 0.1
    for branch in (full.channel_squeeze, full.position_squeeze):
        for layer in branch.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    assert (full(x) - x).abs().max() > 0.1
    close(full(x), twin(x))


@pytest.mark.parametrize("fusion, norm", [*product(FUSIONS, ("batch", "none"))])
def test_a_new_cpsam_is_its_own_control(fusion, norm):
    """Gate one and context zero bit by bit, from the constructor alone."""
    full, x = CPSAM(C, fusion=fusion, norm=norm).double().eval(), images()
    assert torch.equal(full.channel_squeeze(x), torch.zeros(2, C, 1, 1, dtype=torch.float64))
    assert torch.equal(full.position_squeeze(x), x)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_constant_gate_is_an_affine_map_that_sees_no_image(fusion):
    gate, x, z = block(ConstantGate, fusion=fusion), images(), images()
    close(gate(x + z) - gate(z), gate(x) - gate(torch.zeros_like(x)))
    full = block(CPSAM, fusion=fusion)
    assert (full(x + z) - full(z) - full(x) + full(torch.zeros_like(x))).abs().max() > 0.1


@pytest.mark.parametrize("fusion, norm", [*product(FUSIONS, ("batch", "none"))])
def test_constant_gate_can_be_what_cpsam_does_to_one_image(fusion, norm):
    """The control has the capacity of CPSAM for each single image: what it lacks is to look."""
    full, x = block(CPSAM, fusion=fusion, norm=norm), images(1, C, H, W)
    control = ConstantGate(C, fusion=fusion, norm=norm).double().eval()
    control.fuse.load_state_dict(full.fuse.state_dict())
    control.post_norm.load_state_dict(full.post_norm.state_dict())
    gate = (full.position_squeeze(x) / x)[0, :, 0, 0]
    control.gate.copy_((gate / 2).logit())
    control.context.copy_(full.channel_squeeze(x).flatten())
    close(control(x), full(x))


def test_depthwise_convolution_and_gate_commute_and_context_passes_by_the_sum_of_the_kernel():
    """``DW(g * x + c) = g * DW(x) + s * c``, away from the padding."""
    fuse, x = block(CPSAM, fusion="depthwise").fuse, images()
    gate, context = images(2, C, 1, 1), images(2, C, 1, 1)
    inside = (..., slice(1, -1), slice(1, -1))
    kernel_sum = fuse.conv.weight.sum((2, 3)).view(1, C, 1, 1)
    zero = torch.zeros_like(context)
    close(fuse(gate * x, context)[inside], (gate * fuse(x, zero) + kernel_sum * context)[inside])
    fuse.conv.weight -= fuse.conv.weight.mean((2, 3), keepdim=True)
    # an edge detector silences the context
    close(fuse(x, context)[inside], fuse(x, 10 * context)[inside])


def test_grouped_fusion_hears_the_context_through_an_edge_detector_and_at_the_border():
    fuse, x, context = block(CPSAM, fusion="grouped").fuse, images(), images(2, C, 1, 1)
    fuse.conv.weight -= fuse.conv.weight.mean((2, 3), keepdim=True)
    moved = fuse(x, context) - fuse(x, torch.zeros_like(context))
    close(moved, (fuse.context.weight.view(1, C, 1, 1) * context).expand_as(moved))


def permuted(x, order):
    return x.flatten(2)[..., order].unflatten(2, x.shape[2:])


EQUIVARIANT = [
    *(
        ("non_local", {"mode": mode, "norm": norm})
        for mode, norm in product(MODES, ("batch", "none"))
    ),
    ("simplified_non_local", {}),
    ("global_context", {}),
    ("squeeze_excite", {}),
    ("eca", {}),
    ("danet_channel", {}),
    ("norm_only", {}),
    ("conv_control", {"hidden_channels": 5}),
    *(
        ("cpsam", {"fusion": fusion, "interaction": i})
        for fusion, i in product(("sum", "concat"), ("mlp", "affinity"))
    ),
]


@pytest.mark.parametrize("name, arguments", EQUIVARIANT, ids=label)
def test_a_permutation_of_positions_permutes_the_output(name, arguments):
    module, x, order = block(ATTENTION[name], **arguments), images(), torch.randperm(H * W)
    close(module(permuted(x, order)), permuted(module(x), order))


@pytest.mark.parametrize(
    "name, arguments",
    [("cpsam", {}), ("cbam", {}), ("bam", {}), ("non_local", {"subsample": True})],
    ids=label,
)
def test_blocks_with_a_neighbourhood_are_not_equivariant(name, arguments):
    """So the law above can fail."""
    module, x, order = block(ATTENTION[name], **arguments), images(), torch.randperm(H * W)
    assert (module(permuted(x, order)) - permuted(module(x), order)).abs().max() > 1e-2


def test_context_and_gate_do_not_depend_on_the_order_of_positions():
    x, order = images(), torch.randperm(H * W)
    context = block(ChannelSqueezeAttention)
    close(context(permuted(x, order)), context(x))
    for interaction in ("mlp", "affinity"):
        gated = block(PositionSqueezeAttention, interaction=interaction)
        close(gated(permuted(x, order)), permuted(gated(x), order))


def test_the_context_is_the_same_for_every_query():
    for name in ("simplified_non_local", "global_context"):
        module, x = block(ATTENTION[name]), images()
        added = module(x) - x
        close(added, added[..., :1, :1].expand_as(added))
    x = images()
    added = block(NonLocal)(x) - x
    assert (added - added[..., :1, :1]).abs().max() > 0.1


def test_the_scale_is_the_width_of_the_product():
    """Of the inner width for embedded queries, of all channels for bare ones."""
    for mode, width in (("embedded_gaussian", C // 2), ("gaussian", C)):
        scaled, plain, x = (
            block(NonLocal, mode=mode, scaled=True),
            block(NonLocal, mode=mode),
            images(),
        )
        if mode == "gaussian":
            plain.query = torch.nn.Conv2d(C, C, 1, bias=False).double()
            plain.query.weight.copy_(
                torch.eye(C, dtype=torch.float64).view(C, C, 1, 1) / width**0.5
            )
        else:
            plain.query.weight /= width**0.5
            plain.query.bias /= width**0.5
        close(plain(x), scaled(x))


def test_gates_move_every_value_by_a_factor_in_their_range():
    for name, low, high in (("squeeze_excite", 0, 1), ("cbam", 0, 1), ("eca", 0, 1), ("bam", 1, 2)):
        x = images()
        factor = block(ATTENTION[name])(x) / x
        assert factor.min() > low and factor.max() < high and factor.max() - factor.min() > 0.1, (
            name
        )
    factor = block(PositionSqueezeAttention)(x) / x
    assert factor.min() > 0 and factor.max() < 2 and factor.max() > 1 > factor.min()


def test_conv_control_sees_one_position():
    module, x = block(ConvControl, C, hidden_channels=5), images()
    other = x.clone()
    other[:, :, 2, 3] += 1
    moved = (module(other) - module(x)).abs().amax((0, 1)) > 0
    assert moved.nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("name", ["cpsam", "non_local"])
def test_norm_of_the_residual_uses_the_statistics_of_the_batch_in_training(name):
    module, x = block(ATTENTION[name], C).train(), images()
    residual = module(x) - x
    close(residual.mean((0, 2, 3)), module.post_norm.bias)
    close(
        residual.std((0, 2, 3), correction=0),
        module.post_norm.weight.abs().expand(C) * shrink(residual, module.post_norm),
    )


def shrink(residual, norm):
    """What the epsilon of the norm takes from the standard deviation."""
    spread = residual.std((0, 2, 3), correction=0) / norm.weight.abs()  # sqrt(v / (v + eps))
    variance = spread**2 * norm.eps / (1 - spread**2)
    return (variance / (variance + norm.eps)).sqrt()


def test_a_new_block_starts_at_torchs_defaults_but_for_its_zeros():
    """BatchNorm weights of the residual are zero; no other weight matrix is, but the ones that hold
    the identity.
    """
    full = CPSAM(C)
    zero = {name for name, tensor in full.named_parameters() if not tensor.any()}
    assert zero == {
        "channel_squeeze.norm.bias",
        "channel_squeeze.expand.weight",
        "channel_squeeze.expand.bias",
        "position_squeeze.relate.expand.weight",
        "position_squeeze.relate.expand.bias",
        "post_norm.weight",
        "post_norm.bias",
    }
    assert {name for name, tensor in NonLocal(C).named_parameters() if not tensor.any()} == {
        "post_norm.weight",
        "post_norm.bias",
    }
    assert {
        name for name, tensor in NonLocal(C, norm="none").named_parameters() if not tensor.any()
    } == {"proj.weight", "proj.bias"}
    concat = CPSAM(C, fusion="concat", norm="none").fuse.conv.weight
    # of two factors at zero neither would learn
    assert not concat[:, :C].any() and concat[:, C:].all()
