"""Run a module without computing: meta tensors have shapes and no values."""

import copy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules import module as torch_modules
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

# Hooks from here are part of what a module computes (weight_norm, spectral_norm, pruning, inserted
# blocks) or of how it is measured.
PARTS_OF_MODULES = ("torch.nn.utils.", "torch.utils.", "cpsam.")

ONE_THREAD = threading.RLock()  # Global hooks are those of all threads.


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
    """Takes back what a forward stores in attributes, lists and dicts of its modules: a cache of
    meta tensors would spoil the next call.
    """
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


@contextmanager
def without_hooks(module: nn.Module, keep: tuple[str, ...] = PARTS_OF_MODULES) -> Iterator[None]:
    """Suspends forward hooks, of `module` and global, except those defined in the packages `keep`.

    A hook of a user may keep what it sees, and shall not see meta tensors.
    """
    with ONE_THREAD:
        live = [torch_modules._global_forward_hooks, torch_modules._global_forward_pre_hooks]
        live += [
            hooks
            for child in module.modules()
            for hooks in (child._forward_hooks, child._forward_pre_hooks)
        ]
        suspended = [(hooks, dict(hooks)) for hooks in live if hooks]
        for hooks, before in suspended:
            hooks.clear()
            hooks.update({key: hook for key, hook in before.items() if is_defined_in(hook, keep)})
        try:
            yield
        finally:
            for hooks, before in suspended:
                hooks.clear()
                hooks.update(before)


def is_defined_in(hook: Any, packages: tuple[str, ...]) -> bool:
    """Whether a function, or one of the classes of an object, is defined in one of `packages`."""
    names = [getattr(hook, "__module__", None), *(kind.__module__ for kind in type(hook).__mro__)]
    return any(name.startswith(packages) for name in names if isinstance(name, str))


class MixedDevices(TorchDispatchMode):
    """Lets an operation read tensors with values beside meta tensors, as a host does that keeps its
    mean as a plain attribute.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError:
            tensors: list[Tensor] = []
            args, kwargs = tree_map_only(
                Tensor,
                lambda tensor: tensors.append(tensor) or to_meta(tensor),
                (args, kwargs or {}),
            )
            devices = {tensor.is_meta for tensor in tensors}
            # A tensor with values cannot take what a meta tensor does not have.
            if devices != {True, False} or (func._schema.is_mutable and not tensors[0].is_meta):
                raise
            return func(*args, **kwargs)


def to_meta(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")


def call_on_meta(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Runs one forward in eval mode with meta tensors in place of all tensors, and leaves `module`
    as it was.

    Args:
        module: The module to run.
        *args: What its forward takes; of a tensor only shape and dtype matter.
        **kwargs: What its forward takes by name.

    Raises:
        Exception: Whatever the forward raises, for instance because it reads a value.

    Example:
        >>> call_on_meta(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 8, 3, 5])
    """
    # Each tensor once per module, and tied ones together: left to itself, `functional_call` does
    # not restore a module that has two names.
    twins: dict[Tensor, Tensor] = {}
    state: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        own = [
            *child.named_parameters(recurse=False, remove_duplicate=False),
            *child.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for name, tensor in own:
            if tensor not in twins:
                twins[tensor] = torch.empty_like(tensor, device="meta")
            state[f"{path}.{name}" if path else name] = twins[tensor]
    args, kwargs = tree_map_only(Tensor, to_meta, (args, kwargs))
    with ONE_THREAD:
        # Parts that are compiled run as they are written; what is not loaded has compiled nothing.
        eager = (
            torch.compiler.set_stance("force_eager")
            if "torch._dynamo" in sys.modules
            else nullcontext()
        )
        with (
            evaluating(module),
            remembering(module),
            without_hooks(module),
            torch.no_grad(),
            eager,
            MixedDevices(),
        ):
            return functional_call(module, state, args, kwargs, tie_weights=False)


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Lets torch compute with this many threads; 0: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
