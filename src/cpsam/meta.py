"""Run a module without computing: meta tensors have shapes and no values."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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


@contextmanager
def remembering(module: nn.Module) -> Iterator[None]:
    """Takes back what a forward stores in attributes, lists and dicts of its modules: a cache of meta tensors would spoil the next call."""
    kept = []
    for child in module.modules():
        own = vars(child)
        kept.append((own, dict(own)))
        kept += [(value, copy.copy(value)) for value in own.values() if type(value) in (dict, list)]
    try:
        yield
    finally:
        for live, before in kept:
            live.clear()
            live.extend(before) if isinstance(live, list) else live.update(before)


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
    # Parts that are compiled run as they are written; what is not loaded has compiled nothing.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with evaluating(module), remembering(module), torch.no_grad(), eager:
        return functional_call(module, state, (torch.empty_like(x, device="meta"),), tie_weights=False)
