"""The law of determinism: torch has a deterministic algorithm for every operation of a block."""

import warnings
from itertools import product

import torch
from torch import Tensor, nn

from cpsam.testing.case import IMAGES, Case, noise, require, require_finite, trying
from cpsam.torch_state import deterministic_algorithms


def outcome(block: nn.Module, x: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Returns the output, all gradients, and the buffers after the forward."""
    x = x.clone().requires_grad_(True)
    torch.manual_seed(0)
    y = block(x)
    y.backward(upstream)
    gradients = {"the input": x.grad} | {
        name: parameter.grad for name, parameter in block.named_parameters()
    }
    return {
        "the output": y.detach(),
        **{f"the gradient of {name}": g for name, g in gradients.items() if g is not None},
        **{f"the buffer {name}": buffer for name, buffer in block.named_buffers()},
    }


def require_deterministic(twins: tuple[nn.Module, nn.Module], x: Tensor, what: str) -> None:
    """Tries a forward and a backward of two equal blocks under deterministic algorithms.

    Torch then fills new memory with NaN, so the outcome also shows a read before the first write.
    """
    upstream = torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).view(x.shape)
    with deterministic_algorithms(), warnings.catch_warnings(), trying(f"{what}:"):
        warnings.simplefilter("error")
        first, again = (outcome(block, x, upstream) for block in twins)
    for name, tensor in first.items():
        require_finite(tensor, f"{what}: {name}")
        require(torch.equal(tensor, again[name]), f"{what}: {name} has other bits in a second run")


def deterministic(case: Case) -> None:
    """Under ``torch.use_deterministic_algorithms(True)``, forward and backward raise no error and
    no warning, and a second run gives the same bits, in both modes.
    """
    images = noise(IMAGES, "deterministic", dtype=torch.float32)
    for training, layout in product((False, True), (torch.contiguous_format, torch.channels_last)):
        twins = [case.block(dtype=torch.float32).train(training) for _ in range(2)]
        mode = "training" if training else "eval"
        x = images.contiguous(memory_format=layout)
        require_deterministic((twins[0], twins[1]), x, f"{layout}, {mode} mode")
