"""When a block goes the fast way, and what it computes there: the same as its `forward`, the
definition, in fewer passes over memory.

The fast way reads the weights of inner layers instead of calling them. So it is taken only while
every inner layer is what the block built, and no more: of the same class and settings, without
hooks, parametrisations or wrappers, with real weights.
"""

from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._device import DeviceContext

from cpsam.attention import _fast_operations as fused

# settings that the fast way respects, or that mean nothing to it
FREE = {"training", "eps", "momentum", "_is_full_backward_hook"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = (nn.Parameter, Tensor)


class Layer(NamedTuple):
    """What an inner layer is besides the values of its weights."""

    parent: int
    name: str
    kind: type[nn.Module]
    forward: Any
    attributes: int
    names: itemgetter
    settings: Any
    children: int
    tensors: dict[str, torch.Size | None]


def describe(block: nn.Module) -> list[Layer]:
    """Describes all layers in a new block, parents first, for :func:`applies` to compare with
    later.
    """
    found, modules = list[Layer](), [block]
    for parent, module in enumerate(modules):  # grows in the loop
        for name, layer in module.named_children():
            state = vars(layer)
            plain = [
                key
                for key, value in state.items()
                if isinstance(value, int | float | str | tuple | None) and key not in FREE
            ]
            names = itemgetter(*plain, *HOOKS)
            settings = tuple({} if key in HOOKS else state[key] for key in (*plain, *HOOKS))
            tensors = {
                key: None if t is None else t.shape
                for key, t in (layer._parameters | layer._buffers).items()
            }
            kind, children = type(layer), len(layer._modules)
            found.append(
                Layer(
                    parent, name, kind, kind.forward, len(state), names, settings, children, tensors
                )
            )
            modules.append(layer)
    return found


def applies(block: nn.Module, x: Tensor) -> bool:
    """Whether `block`, which kept its own description as ``built``, may go the fast way with `x`.
    Hooks on the block itself do not matter.

    It looks at every inner layer in every call, so that it never misses a change.
    """
    built: list[Layer] | None = block.__dict__.get("built")
    return (
        built is not None and is_ordinary(x) and not is_watched() and are_as_built(block, built, x)
    )


def is_ordinary(x: Tensor) -> bool:
    """Whether an input is an ordinary tensor in full precision, which nobody traces, compiles,
    exports or transforms.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        type(x) in PLAIN
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() == 4
        and x.numel() > 0
        and x.layout is torch.strided
        and not x.is_meta
        and not torch.is_autocast_enabled(x.device.type)
        # The rest wants torch's own operations. There is no public way to ask for it.
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def is_watched() -> bool:
    """Whether something outside the block sees or changes the calls of all modules, functions or
    operations.
    """
    if _has_any_global_hook() or called() != CALLED or torch._C._len_torch_dispatch_stack():
        return True
    modes = range(torch._C._len_torch_function_stack())
    # A default device changes only new tensors.
    return any(type(torch._C._get_function_stack_at(index)) is not DeviceContext for index in modes)


def called() -> tuple[Any, ...]:
    """Returns what the definition calls and the fast way may not; profilers replace these."""
    return nn.Module.__call__, nn.Conv2d._conv_forward, F.conv2d, F.linear, F.batch_norm


CALLED = called()


def are_as_built(block: nn.Module, built: list[Layer], x: Tensor) -> bool:
    """Whether all layers are as the block built them. One loop, because calls of functions would
    take longer than what they do.
    """
    device, dtype, modules = x.device, x.dtype, [block]
    for parent, name, kind, forward, attributes, names, settings, children, tensors in built:
        layer = modules[parent]._modules.get(name)
        if type(layer) is not kind or kind.forward is not forward:
            return False
        state = layer.__dict__
        # no ``forward`` of its own, no compiled call, no mark of a library, no hook
        if (
            len(state) != attributes
            or names(state) != settings
            or len(state["_modules"]) != children
        ):
            return False
        modules.append(layer)
        if tensors:
            held = state["_parameters"] | state["_buffers"]
            if held.keys() != tensors.keys():
                return False
            for key, shape in tensors.items():
                tensor = held[key]
                if type(tensor) not in PLAIN or tensor.shape != shape or tensor.device != device:
                    if tensor is not None or shape is not None:
                        return False
                # the counter of a norm
                elif tensor.dtype is not dtype and tensor.dtype is not torch.int64:
                    return False
        elif state["_parameters"] or state["_buffers"]:
            return False
    return True


def cpsam(block: Any, x: Tensor) -> Tensor:
    """CPSAM with one product for mean and context; in eval mode the norm is inside the weights of
    the convolution.
    """
    given, x = x, fused.prefer_channels_last(x)
    x, context, mean, maximum = fused.squeeze(x, block.channel_squeeze.key.weight)
    context = block.channel_squeeze.transform(context)  # (N, C, 1, 1)
    gates = block.position_squeeze.gates(mean, maximum)  # (N, C, 1, 1)
    weight, before, after = block.fuse.split(context)
    return fused.like(
        fused.fuse(x, gates, block.fuse.conv, weight, before, after, block.post_norm), given
    )


def non_local(block: Any, x: Tensor) -> Tensor:
    """Embedded Non-Local with one product for query, key and value, and rows of channels, (N, L,
    C/r), all the way.
    """
    layers = (block.query, block.key, block.value)
    weight = torch.cat([fused.with_own_strides(layer.weight) for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    images = fused.prefer_channels_last(x)
    query, key, value = fused.pointwise(images, weight, bias).chunk(3, 1)  # (N, C/r, H, W)
    attended = block.attend(query, block.pool(key), block.pool(value))
    return fused.like(fused.project(attended, block.proj, block.post_norm).add_(images), x)
