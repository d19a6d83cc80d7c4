"""Gradients of the blocks on a GPU: right, the same each time, with a scaler, and compiled."""

from itertools import product

import pytest
import torch
from support.gpu import CPU, ON_EACH_DEVICE, C, block, every, images, require_same, tf32
from support.variants import CONFIGURATIONS

from cpsam.attention import ATTENTION, _fast_path
from cpsam.functional import position_squeeze
from cpsam.testing.determinism import outcome, require_deterministic

DEFAULTS = [(name, arguments) for name, arguments in CONFIGURATIONS if not arguments]
FAST = [
    (name, arguments)
    for name, arguments in CONFIGURATIONS
    if name == "cpsam" or (name == "non_local" and "mode" not in arguments)
]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def upstream(x):
    return torch.linspace(-1, 1, x.numel(), device=x.device, dtype=x.dtype).view(x.shape)


@every(DEFAULTS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_the_cpu(device, name, arguments, training):
    x = images(device, torch.float64)
    module, twin = (block(on, name, arguments, torch.float64) for on in (device, CPU))
    expected = outcome(twin.train(training), x.cpu(), upstream(x.cpu()))
    require_same(outcome(module.train(training), x, upstream(x)), expected, 1e-10)


@every(FAST)
@pytest.mark.parametrize("training", [True, False])
def test_the_fast_path_is_the_definition(device, name, arguments, training):
    x = images(device, torch.float64)
    x[:, 3] = 0  # a dead channel has its maximum everywhere
    for layout in LAYOUTS:
        x = x.contiguous(memory_format=layout)
        fast, plain = (block(device, name, arguments, torch.float64) for _ in range(2))
        assert _fast_path.applies(fast, x)
        plain.built = None
        expected = outcome(plain.train(training), x, upstream(x))
        require_same(outcome(fast.train(training), x, upstream(x)), expected, 1e-10)


@every(CONFIGURATIONS)
def test_deterministic_algorithms_give_the_same_bits(device, name, arguments):
    """The map is so large that a kernel which adds by several threads in any order shows."""
    x = images(device, size=(2, C, 33, 47))
    for dtype, training in product((torch.float32, torch.bfloat16), (True, False)):
        twins = [block(device, name, arguments, dtype).train(training) for _ in range(2)]
        require_deterministic((twins[0], twins[1]), x.to(dtype), f"{dtype}, training={training}")


@every([case for case in CONFIGURATIONS if case[0] in ("cpsam", "non_local")])
def test_the_definition_is_deterministic(device, name, arguments):
    twins = block(device, name, arguments), block(device, name, arguments)
    for twin in twins:
        twin.built = None
    require_deterministic(twins, images(device, size=(2, C, 33, 47)), "the definition")


@every(DEFAULTS)
def test_float16_with_a_scaler_gives_the_gradients_of_float64(device, name, arguments):
    """Without its factor the gradient of a mean over many values would be zero in float16."""
    x = images(device, torch.float16)
    module = block(device, name, arguments).train()
    exact = block(device, name, arguments, torch.float64).train()
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**12)
    optimizer = torch.optim.SGD(module.parameters())
    with torch.autocast(device.type, torch.float16):
        y = module(x.float())
    scaler.scale((y.float() * upstream(x.float())).mean()).backward()
    scaler.unscale_(optimizer)
    (exact(x.double()) * upstream(x.double())).mean().backward()
    wanted = {key: parameter.grad for key, parameter in exact.named_parameters()}
    found = {key: parameter.grad for key, parameter in module.named_parameters()}
    require_same(found, wanted, 5e-2)  # forward and backward round: twice the share of a forward


@every([("cpsam", {}), ("non_local", {}), ("danet_channel", {})])
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own choices
def test_a_compiled_block_is_the_block(device, name, arguments):
    torch.compiler.reset()
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    module, twin = (block(device, name, arguments).train() for _ in range(2))
    compiled, x = torch.compile(module, fullgraph=True, backend=backend), images(device)
    with tf32(False):
        expected = outcome(twin, x, upstream(x))
        found = outcome(compiled, x, upstream(x))
    require_same({key.replace("_orig_mod.", ""): t for key, t in found.items()}, expected, 1e-3)


@ON_EACH_DEVICE
def test_the_gradient_of_a_maximum_that_is_tied_is_shared_and_the_same_each_time(device):
    x = torch.zeros(3, C, 33, 47, device=device)
    x[:, ::2, ::4, 5] = 1  # nine positions hold the maximum of every other channel
    weights = torch.rand(3, C, 1, 1, device=device)
    gradients = []
    for _ in range(10):
        leaf = x.clone().requires_grad_()
        _, maximum = position_squeeze(leaf)
        (maximum * weights).sum().backward()
        gradients.append(leaf.grad)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    torch.testing.assert_close(gradients[0][:, ::2], weights[:, ::2] * x[:, ::2] / 9)
    torch.testing.assert_close(
        gradients[0][:, 1::2], (weights[:, 1::2] / (33 * 47)).expand(-1, -1, 33, 47)
    )


def test_every_block_is_tried():
    assert {name for name, _ in CONFIGURATIONS} == set(ATTENTION)
