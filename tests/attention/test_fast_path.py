"""The fast path applies only while every inner layer is what the block built."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.overrides import TorchFunctionMode

from cpsam.attention import ATTENTION, CPSAM, NonLocal, _fast_path
from cpsam.measure import peak_memory_bytes
from cpsam.testing import randomise

C = 16
BLOCKS = {
    "cpsam": functools.partial(CPSAM, C),
    "cpsam, affinity, concat": functools.partial(CPSAM, C, interaction="affinity", fusion="concat"),
    "cpsam, sum, none": functools.partial(CPSAM, C, fusion="sum", norm="none"),
    "non_local": functools.partial(NonLocal, C),
    "non_local, subsample, none": functools.partial(NonLocal, C, subsample=True, norm="none"),
}
LAYERS = [
    (name, path) for name, make in BLOCKS.items() for path, _ in make().named_modules() if path
]


def images():
    return torch.randn(2, C, 5, 7)


def replace(block, path, new):
    parent, _, child = path.rpartition(".")
    setattr(block.get_submodule(parent), child, new)


def subclass(block, path):
    layer = block.get_submodule(path)
    layer.__class__ = type("Twice", (type(layer),), {})


def own_forward(block, path):
    layer = block.get_submodule(path)
    layer.forward = functools.partial(type(layer).forward, layer)


def wrapped(block, path):
    replace(block, path, nn.Sequential(block.get_submodule(path)))


def own_weight_class(block, path):
    class Weight(torch.Tensor):
        pass

    for layer in block.get_submodule(path).modules():
        for name, weight in list(layer._parameters.items()):
            if weight is not None:
                layer._parameters[name] = nn.Parameter(weight.detach().as_subclass(Weight))


# Each way in which a layer may be more than its weights, whatever its class.
CHANGES = {
    "forward hook": lambda block, path: block.get_submodule(path).register_forward_hook(
        lambda *_: None
    ),
    "always called": lambda block, path: block.get_submodule(path).register_forward_hook(
        lambda *_: None, always_call=True
    ),
    "forward pre-hook": lambda block, path: block.get_submodule(path).register_forward_pre_hook(
        lambda *_: None
    ),
    "backward hook": lambda block, path: block.get_submodule(path).register_full_backward_hook(
        lambda *_: None
    ),
    "backward pre-hook": lambda block, path: block.get_submodule(
        path
    ).register_full_backward_pre_hook(lambda *_: None),
    "subclass": subclass,
    "own forward": own_forward,
    "wrapper": wrapped,
    "compiled call": lambda block, path: setattr(
        block.get_submodule(path), "_compiled_call_impl", lambda *args: None
    ),
    "another child": lambda block, path: block.get_submodule(path).add_module(
        "extra", nn.Identity()
    ),
    "another parameter": lambda block, path: block.get_submodule(path).register_parameter(
        "extra", nn.Parameter(torch.ones(1))
    ),
    "a mark of a library": lambda block, path: setattr(
        block.get_submodule(path), "_hf_hook", object()
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_layer_that_is_more_than_its_weights_ends_the_fast_path(change):
    for name, path in LAYERS:
        block, x = BLOCKS[name](), images()
        assert _fast_path.applies(block, x), name
        change(block, path)
        assert not _fast_path.applies(block, x), (name, path)


WITH_WEIGHTS = [
    (name, path) for name, path in LAYERS if [*BLOCKS[name]().get_submodule(path).parameters()]
]
OTHER_WEIGHTS = {
    "class": own_weight_class,
    "dtype": lambda block, path: block.get_submodule(path).double(),
    "device": lambda block, path: block.get_submodule(path).to("meta"),
}


@pytest.mark.parametrize("change", OTHER_WEIGHTS.values(), ids=OTHER_WEIGHTS)
def test_weights_that_are_not_plain_end_the_fast_path(change):
    for name, path in WITH_WEIGHTS:
        block = BLOCKS[name]()
        change(block, path)
        assert not _fast_path.applies(block, images()), (name, path)


REGISTER = {
    "forward": global_hooks.register_module_forward_hook,
    "forward pre": global_hooks.register_module_forward_pre_hook,
    "backward": global_hooks.register_module_full_backward_hook,
    "backward pre": global_hooks.register_module_full_backward_pre_hook,
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)
def test_global_hooks_see_every_layer(register, name):
    block, x, seen = BLOCKS[name](), images().requires_grad_(True), set()
    handle = register(lambda module, *_: seen.add(module) and None)
    try:
        block(x).sum().backward()
    finally:
        handle.remove()
    assert seen >= {
        module for module in block.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    }
    assert _fast_path.applies(block, x.detach())


@pytest.mark.parametrize("name", [name for name in BLOCKS if "none" not in name])
def test_a_hook_on_the_norm_holds_what_the_norm_gives(name):
    block, x, seen = randomise(BLOCKS[name]()).eval(), images().requires_grad_(True), []
    block.post_norm.register_forward_hook(lambda module, args, output: seen.append(output))
    block.post_norm.register_full_backward_hook(lambda *_: None)
    y = block(x)
    y.sum().backward()
    torch.testing.assert_close(seen[0], y - x, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of:FutureWarning")
@pytest.mark.parametrize(
    "name, path",
    [
        (name, path)
        for name, path in LAYERS
        if path.split(".")[-1] in ("key", "query", "proj", "conv")
    ],
)
def test_reparametrised_layers_compute_what_their_weights_are_now(name, path):
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    for change in (
        lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: parametrizations.weight_norm(layer),
        lambda layer: parametrizations.spectral_norm(layer),
        weight_norm,
        spectral_norm,
    ):
        block, x = randomise(BLOCKS[name]()).eval(), images()
        change(block.get_submodule(path))
        block.requires_grad_(False)
        actual = block(x)
        block.built = None
        assert torch.equal(actual, block(x))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(C, affine=False),
        nn.BatchNorm2d(C, track_running_stats=False),
        nn.SyncBatchNorm(C),
        nn.GroupNorm(4, C),
        nn.Identity(),
    ],
    ids=["not affine", "no statistics", "synchronised", "groups", "nothing"],
)
@pytest.mark.parametrize("cls", [CPSAM, NonLocal])
def test_another_norm_is_called(cls, norm):
    block, x = randomise(cls(C)).eval(), images()
    block.post_norm = norm.eval()
    assert not _fast_path.applies(block, x)
    if not isinstance(norm, nn.SyncBatchNorm):
        assert block(x).shape == x.shape


@pytest.mark.parametrize("name", BLOCKS)
def test_a_mode_for_functions_sees_every_layer(name):
    class Doubles(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            return 2 * result if getattr(func, "__name__", "") == "conv2d" else result

    block, x = randomise(BLOCKS[name]()).eval(), images()
    with Doubles():
        actual = block(x)
        block.built = None
        assert torch.equal(actual, block(x))


def test_a_default_device_does_not_end_the_fast_path():
    block, x = CPSAM(C), images()
    with torch.device("cpu"):
        assert _fast_path.applies(block, x)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    "owner, patched",
    [(nn.Module, "__call__"), (nn.Conv2d, "_conv_forward"), (nn.functional, "conv2d")],
)
def test_a_function_that_is_patched_is_called_for_every_convolution(
    owner, patched, name, monkeypatch
):
    block, x, seen, original = (
        randomise(BLOCKS[name]()).eval(),
        images(),
        [],
        getattr(owner, patched),
    )
    monkeypatch.setattr(
        owner, patched, lambda *args, **kwargs: (seen.append(args), original(*args, **kwargs))[1]
    )
    block(x)
    assert _fast_path.is_watched()
    assert len(seen) >= len([layer for layer in block.modules() if isinstance(layer, nn.Conv2d)])
    monkeypatch.undo()
    assert _fast_path.applies(block, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_weights_that_are_expanded_have_gradients(name):
    block = BLOCKS[name]()
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(layer.weight.detach()[:1].expand_as(layer.weight))
    block(images()).sum().backward()
    assert all(
        layer.weight.grad is not None for layer in block.modules() if isinstance(layer, nn.Conv2d)
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_maps_without_positions_get_what_the_definition_says(name):
    assert BLOCKS[name]()(torch.randn(0, C, 5, 7)).shape == (0, C, 5, 7)
    with pytest.raises(RuntimeError):
        BLOCKS[name]()(torch.randn(2, C, 0, 7))


def test_an_image_that_is_a_parameter_takes_the_fast_path():
    x = nn.Parameter(images())
    assert _fast_path.applies(CPSAM(C), x)


def test_settings_of_a_layer_count():
    block, x = NonLocal(C), images()
    block.query = nn.Conv2d(C, 8, 3, padding=1)
    assert not _fast_path.applies(block, x)
    block = CPSAM(C)
    block.fuse.conv.padding_mode = "circular"
    assert not _fast_path.applies(block, x)
    block = CPSAM(C)
    block.post_norm.momentum, block.post_norm.eps = 0.03, 1e-3  # detectors set these everywhere
    assert _fast_path.applies(block, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_hooks_on_the_block_change_nothing_and_hooks_that_are_gone_are_forgotten(name):
    block, x, seen = randomise(BLOCKS[name]()), images().requires_grad_(True), []
    block.register_forward_hook(lambda module, args, output: seen.append(output))
    block.register_full_backward_hook(lambda *_: seen.append("backward"))
    assert _fast_path.applies(block, x)
    y = block(x)
    y.sum().backward()
    assert len(seen) == 2
    for path, _ in list(block.named_modules())[1:]:
        handles = [block.get_submodule(path).register_full_backward_hook(lambda *_: None)]
        handles[0].remove()
    assert _fast_path.applies(block, x)


SECOND = {
    **BLOCKS,
    **{
        f"non_local, {mode}": functools.partial(NonLocal, C, mode=mode)
        for mode in ("gaussian", "dot_product")
    },
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name, training):
    block = randomise(SECOND[name]()).double().train(training)
    x, direction = (
        torch.randn(2, C, 3, 4, dtype=torch.float64),
        torch.randn(2, C, 3, 4, dtype=torch.float64),
    )
    step = 1e-6

    def slope(x):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(block(x).square().sum(), x, create_graph=True)[0]

    _, actual = torch.autograd.functional.hvp(lambda x: block(x).square().sum(), x, direction)
    expected = (slope(x + step * direction) - slope(x - step * direction)).detach() / (2 * step)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
    slope(x).square().sum().backward()  # the penalty on a gradient
    assert all(
        p.grad is not None
        for n, p in block.named_parameters()
        if n.endswith("conv.weight") or n == "proj.weight"
    )


@pytest.mark.parametrize("name", SECOND)
def test_hessians_and_batches_of_gradients(name):
    block = randomise(SECOND[name]()).double().eval()
    x = torch.randn(1, C, 1, 2, dtype=torch.float64)

    def loss(x):
        return block(x).square().sum()

    hessian = torch.func.hessian(loss)(x)
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, x), hessian)
    jacobian = torch.func.jacrev(block)(x)
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(block, x, vectorize=True), jacobian
    )


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("mode", ["gaussian", "embedded_gaussian"])
@pytest.mark.parametrize("plain", [True, False], ids=["definition", "fast"])
def test_softmax_modes_never_hold_the_map_of_all_pairs(plain, mode, subsample, training):
    def peak(side):
        block, x = (
            NonLocal(16, mode=mode, subsample=subsample).train(training),
            torch.randn(1, 16, side, side, requires_grad=training),
        )
        block.built = None if plain else block.built

        def step():
            with torch.set_grad_enabled(training):
                y = block(x)
            return y.sum().backward() if training else y

        step()
        return peak_memory_bytes(step)

    assert peak(64) < 64**4 * 4 / 4  # the map would be 64 MiB, or 16 MiB
    assert peak(64) < 5 * peak(32)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "name", ["cpsam", "danet_channel", "non_local", "global_context", "simplified_non_local"]
)
def test_new_blocks_are_the_identity_in_half_precision_for_large_activations(name, dtype, autocast):
    x = (1e4 + 1e4 * torch.randn(1, C, 28, 28)).to(torch.float32 if autocast else dtype)
    block = ATTENTION[name](C).to(x.dtype).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
        assert torch.equal(block(x), x)
