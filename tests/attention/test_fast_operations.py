"""The fast path computes what the definition computes, values and gradients."""

import copy

import pytest
import torch

from cpsam.attention import ATTENTION, CPSAM, NonLocal, _fast_operations, _fast_path
from cpsam.testing import randomise

C = 24
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BLOCKS = {
    **{
        f"cpsam, {fusion}, {interaction}, {norm}": lambda f=fusion, i=interaction, n=norm: CPSAM(
            C, fusion=f, interaction=i, norm=n
        )
        for fusion in ("sum", "concat", "depthwise", "grouped")
        for interaction in ("mlp", "affinity")
        for norm in ("batch", "none")
    },
    **{
        f"non_local, subsample={subsample}, {norm}": lambda s=subsample, n=norm: NonLocal(
            C, subsample=s, norm=n
        )
        for subsample in (False, True)
        for norm in ("batch", "none")
    },
}


def images(memory_format=torch.contiguous_format, size=(3, C, 5, 7), dtype=torch.float64):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    x[:, 3] = 0  # a dead channel has its maximum everywhere
    # twice in a row of the map, and once in another
    x[1, 5, 2, 1] = x[1, 5, 2, 4] = x[1, 5, 4, 0] = 9
    return x.contiguous(memory_format=memory_format)


def plain(block):
    """The same block as its definition says."""
    other = copy.deepcopy(block)
    other.built = None
    return other


def close(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-10 * (1 + expected.abs().max())


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_values_gradients_and_statistics_are_those_of_the_plain_way(make, training, memory_format):
    block = randomise(make()).double().train(training)
    x = images(memory_format).requires_grad_(True)
    assert _fast_path.applies(block, x)
    direction = images(size=(3, C, 5, 7)).flip(0)
    results = []
    for each in (block, plain(block)):
        y = each(x)
        assert y.stride() == x.stride()
        results.append(
            [y, *torch.autograd.grad(y, [x, *each.parameters()], direction), *each.buffers()]
        )
    for actual, expected in zip(*results, strict=True):
        close(actual, expected)
    with torch.no_grad():
        close(block.eval()(x), plain(block).eval()(x))


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_the_gradient_of_a_maximum_is_shared_by_all_positions_that_have_it(memory_format):
    x = images(memory_format).requires_grad_(True)
    upstream = torch.arange(1.0, 3 * C + 1, dtype=torch.float64).view(3, C, 1, 1)
    given, *_, maximum = _fast_operations.squeeze(x, torch.zeros(1, C, 1, 1, dtype=torch.float64))
    (actual,) = torch.autograd.grad([maximum, given], x, [upstream, torch.zeros_like(x)])
    for n in range(3):
        for c in range(C):
            winners = x[n, c] == x[n, c].max()
            close(actual[n, c], winners * upstream[n, c] / winners.sum())


@pytest.mark.parametrize("of_weights", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("of_images", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_gradients_have_the_strides_of_their_weights(make, of_images, of_weights):
    block = randomise(make()).double().to(memory_format=of_weights)
    block(images(of_images)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name


def test_frozen_parameters_and_a_first_layer_need_no_gradient():
    block = randomise(CPSAM(C)).double()
    block.channel_squeeze.requires_grad_(False)
    x = images()
    y, expected = block(x), plain(block)(x)
    wanted = [p for p in block.parameters() if p.requires_grad]
    for actual, other in zip(torch.autograd.grad(y.square().sum(), wanted), wanted, strict=True):
        assert actual.shape == other.shape
    close(y, expected)


def test_transforms_of_functions_get_the_plain_way():
    block = randomise(CPSAM(C)).double().eval()
    x = images()
    parameters = dict(block.named_parameters()) | dict(block.named_buffers())
    each = torch.func.vmap(
        lambda image: torch.func.functional_call(block, parameters, image.unsqueeze(0)).squeeze(0)
    )(x)
    close(each, block(x))
    value, tangent = torch.func.jvp(block, (x,), (torch.ones_like(x),))
    step = 1e-6
    close(value, block(x))
    assert (tangent - (block(x + step) - block(x - step)) / (2 * step)).abs().max() < 1e-4


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "x",
    [
        images(dtype=torch.bfloat16),
        images(dtype=torch.float16),
        images().to("meta"),
        images().as_subclass(Subclass),
    ],
    ids=["bfloat16", "float16", "meta", "a subclass of tensor"],
)
def test_other_inputs_are_not_taken(x):
    assert not _fast_path.is_ordinary(x)


def test_autocast_is_not_taken():
    with torch.autocast("cpu", torch.bfloat16):
        assert not _fast_path.is_ordinary(images(dtype=torch.float32))


# What these copy is a bias into a result, or, in place, a tensor onto itself, which torch then
# leaves.
NO_COPY_OF_AN_IMAGE = {"aten::_slow_conv2d_forward", "aten::addmm", "aten::baddbmm_"}


def large_copies(step, x):
    """The copies of a tensor as large as x that torch makes during `step`, each with what asked for
    it.
    """
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    ) as profile:
        step()
    copies = [
        (event.name, event.cpu_parent.name if event.cpu_parent else "")
        for event in profile.events()
        if event.name in ("aten::copy_", "aten::clone")
        and max((torch.Size(shape).numel() for shape in event.input_shapes), default=0) >= x.numel()
    ]
    return [(name, parent) for name, parent in copies if parent not in NO_COPY_OF_AN_IMAGE]


@pytest.mark.parametrize("fusion", ["sum", "depthwise", "grouped"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_channels_last_images_go_through_without_a_copy(fusion, training):
    block = randomise(CPSAM(C, fusion=fusion)).to(memory_format=torch.channels_last).train(training)
    x = images(torch.channels_last, size=(3, C, 9, 11), dtype=torch.float32).requires_grad_(
        training
    )
    upstream = torch.ones_like(x)

    def step():
        y = block(x)
        if training:
            y.backward(upstream)

    step()
    x.grad = None
    assert large_copies(step, x) == []
    # the profile sees a copy where there is one
    assert large_copies(lambda: x.detach().contiguous(), x) != []


@pytest.mark.parametrize("name", ATTENTION)
def test_channels_last_images_go_forward_through_every_block_without_a_copy(name):
    required = {"hidden_channels": 8} if name == "conv_control" else {}
    block = randomise(ATTENTION[name](C, **required)).to(memory_format=torch.channels_last).eval()
    x = images(torch.channels_last, size=(3, C, 9, 11), dtype=torch.float32)
    with torch.no_grad():
        block(x)
        assert large_copies(lambda: block(x), x) == []


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("fusion", ["sum", "concat", "depthwise", "grouped"])
def test_a_training_step_saves_at_most_four_times_its_input(fusion, memory_format):
    block = randomise(CPSAM(64, fusion=fusion))
    x = torch.randn(2, 64, 33, 35).contiguous(memory_format=memory_format).requires_grad_(True)
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = block(x)
    parameters = sum(p.nbytes for p in block.parameters())
    assert y.shape == x.shape
    assert x.nbytes < sum(saved.values()) - parameters <= 4 * x.nbytes
