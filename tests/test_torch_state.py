from contextlib import nullcontext

import pytest
import torch
from torch import nn

from cpsam.measure import count_macs
from cpsam.torch_state import (
    call_on_meta,
    deterministic_algorithms,
    deterministic_cudnn,
    evaluating,
    set_determinism,
    thread_count,
)


class Shared(nn.Module):
    """One module under two names, two modules with one weight, and one tensor under two names of
    one module.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.again = nn.Sequential(self.first, nn.BatchNorm2d(3))
        self.tied = nn.Conv2d(3, 3, 1)
        self.tied.weight = self.first.weight
        self.tied.also = self.tied.weight
        self.register_buffer("scale", torch.full((3, 1, 1), 2.0), persistent=False)

    def forward(self, x):
        return self.tied(self.again(self.first(x))) * self.scale


def state(module):
    return [
        (id(tensor), tensor.device.type, tensor.requires_grad, tensor._version)
        for child in module.modules()
        for tensor in [*child._parameters.values(), *child._buffers.values()]
        if tensor is not None
    ]


@pytest.mark.parametrize(
    "run",
    [lambda m: call_on_meta(m, torch.zeros(2, 3, 5, 7)), lambda m: count_macs(m, (2, 3, 5, 7))],
)
def test_modules_and_tensors_with_several_names_get_their_own_back(run):
    module, x = Shared(), torch.randn(2, 3, 5, 7)
    module.again[1].eval()
    before, modes, expected = (
        state(module),
        [child.training for child in module.modules()],
        module(x),
    )
    run(module)
    assert state(module) == before and [child.training for child in module.modules()] == modes
    assert torch.equal(module(x), expected)


def test_a_failure_gives_everything_back_too():
    module = Shared()
    before, modes = state(module), [child.training for child in module.modules()]
    with pytest.raises(RuntimeError):
        call_on_meta(module, torch.zeros(2, 4, 5, 7))
    assert state(module) == before and [child.training for child in module.modules()] == modes


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_forward_caches_is_forgotten(fails):
    """A cache of meta tensors would spoil the next real forward."""

    class Caches(nn.Module):
        def __init__(self):
            super().__init__()
            self.grid, self.by_size, self.sizes = torch.ones(()), {"kept": 1}, [0]

        def forward(self, x):
            self.grid, self.new = self.grid.to(x.device), x
            self.by_size[x.shape], self.by_size["kept"] = x, 2
            self.sizes.append(x.shape)
            if fails:
                raise RuntimeError
            return x * self.grid

    module = nn.Sequential(Caches())
    caches, grid, by_size, sizes = module[0], module[0].grid, module[0].by_size, module[0].sizes
    with pytest.raises(RuntimeError) if fails else nullcontext():
        call_on_meta(module, torch.zeros(2, 3, 5, 7))
    assert caches.grid is grid and not hasattr(caches, "new")
    assert caches.by_size is by_size == {"kept": 1} and caches.sizes is sizes == [0]


def test_nothing_is_computed_and_no_random_number_drawn():
    seen = []

    class Noisy(nn.Module):
        def forward(self, x):
            y = nn.functional.dropout(x, 0.5) + torch.rand_like(x)
            seen.append(y.device.type)
            return y

    module, generator = Noisy(), torch.get_rng_state()
    out = call_on_meta(module, torch.zeros(2, 3, 5, 7, dtype=torch.float64))
    assert out.shape == (2, 3, 5, 7) and out.dtype == torch.float64 and seen == ["meta"]
    assert torch.equal(torch.get_rng_state(), generator)


def test_evaluating_restores_each_mode():
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3))
    module[1].eval()
    with pytest.raises(KeyError), evaluating(module):
        assert not any(child.training for child in module.modules())
        raise KeyError
    assert [child.training for child in module.modules()] == [True, True, False]


def test_settings_of_torch_come_back_after_an_error():
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    before = cudnn.deterministic, cudnn.benchmark
    with pytest.raises(KeyError), thread_count(threads + 1), deterministic_cudnn():
        assert torch.get_num_threads() == threads + 1 and cudnn.deterministic
        raise KeyError
    assert torch.get_num_threads() == threads and before == (cudnn.deterministic, cudnn.benchmark)
    with thread_count(0):
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_determinism_comes_back_as_it_was(mode):
    compiler = pytest.importorskip("torch._inductor.config")
    try:
        set_determinism(mode)
        with pytest.raises(KeyError), deterministic_algorithms():
            assert torch.get_deterministic_debug_mode() == 2 and compiler.deterministic
            raise KeyError
        assert torch.get_deterministic_debug_mode() == mode
        assert compiler.deterministic == (mode > 0)
    finally:
        set_determinism(0)
