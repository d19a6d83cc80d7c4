"""Sets what torch and a module remember (modes, threads, hooks), and restores it for the caller."""

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

# Hooks from these packages are part of what a module computes (weight_norm, spectral_norm, pruning,
# inserted blocks) or of how it is measured.
PARTS_OF_MODULES = ("torch.nn.utils.", "torch.utils.", "cpsam.")

ONE_THREAD = threading.RLock()  # All threads of a process share torch's global hooks.


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Sets eval mode, then restores the mode of each module: some may be frozen in eval mode."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Sets the number of threads that torch computes with, then restores it; 0 keeps it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic_cudnn() -> Iterator[None]:
    """Lets cuDNN take deterministic kernels, without timing several, then restores its settings."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Makes torch compute deterministically or raise, then restores its setting."""
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        set_determinism(before)


def set_determinism(mode: int) -> None:
    """Sets what ``torch.get_deterministic_debug_mode`` returns.

    The setter of that name leaves the mode of torch's compiler.
    """
    torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)


@contextmanager
def restoring_attributes(module: nn.Module) -> Iterator[None]:
    """Restores the attributes of all modules, and the lists and dicts in them.

    A forward on meta tensors may store some, as in a cache, which would spoil the next call.
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

    A hook of a user may store what it sees, so it must not see meta tensors.
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
    """Tells whether a function, or a class of an object, is defined in one of `packages`."""
    names = [getattr(hook, "__module__", None), *(kind.__module__ for kind in type(hook).__mro__)]
    return any(name.startswith(packages) for name in names if isinstance(name, str))


class MixedDevices(TorchDispatchMode):
    """Lets an operation read tensors with values beside meta tensors.

    A host that keeps its mean as a plain attribute needs that.
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
    """Runs one forward on the meta device, in eval mode, and leaves `module` as it was.

    Meta tensors have shapes and no values, so nothing is computed.

    Args:
        module: The module to run.
        *args: The arguments of its forward; of a tensor only shape and dtype matter.
        **kwargs: The arguments of its forward by name.

    Raises:
        Exception: Whatever the forward raises, for instance because it reads a value.

    Example:
        >>> call_on_meta(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 8, 3, 5])
    """
    # Each name of a module is listed, and tied tensors stay tied: `functional_call` alone does not
    # restore a module that has two names.
    meta_of: dict[Tensor, Tensor] = {}
    state: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        own = [
            *child.named_parameters(recurse=False, remove_duplicate=False),
            *child.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for name, tensor in own:
            if tensor not in meta_of:
                meta_of[tensor] = torch.empty_like(tensor, device="meta")
            state[f"{path}.{name}" if path else name] = meta_of[tensor]
    args, kwargs = tree_map_only(Tensor, to_meta, (args, kwargs))
    with ONE_THREAD:
        # Compiled parts run as they are written. If dynamo is not loaded, nothing is compiled.
        eager = (
            torch.compiler.set_stance("force_eager")
            if "torch._dynamo" in sys.modules
            else nullcontext()
        )
        with (
            evaluating(module),
            restoring_attributes(module),
            without_hooks(module),
            torch.no_grad(),
            eager,
            MixedDevices(),
        ):
            return functional_call(module, state, args, kwargs, tie_weights=False)
