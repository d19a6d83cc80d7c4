"""Run a module without computing: meta tensors have shapes and no values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


def call_on_meta(module: nn.Module, x: Tensor) -> Any:
    """One forward in eval mode with meta tensors in place of all parameters, buffers and values of `x`; leaves `module` as it was.

    Args:
        module: A module whose forward takes one tensor.
        x: Of the shape and dtype of its input.

    Raises:
        Exception: Whatever the forward raises, for instance because it reads a value.

    Example:
        >>> call_on_meta(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 8, 3, 5])
    """
    # Each tensor once a module, and tied ones together: left to itself, `functional_call` does not restore a module that has two names.
    twins: dict[Tensor, Tensor] = {}
    state: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        own = [*child.named_parameters(recurse=False, remove_duplicate=False), *child.named_buffers(recurse=False, remove_duplicate=False)]
        for name, tensor in own:
            if tensor not in twins:
                twins[tensor] = torch.empty_like(tensor, device="meta")
            state[f"{path}.{name}" if path else name] = twins[tensor]
    with evaluating(module), torch.no_grad():
        return functional_call(module, state, (torch.empty_like(x, device="meta"),), tie_weights=False)
