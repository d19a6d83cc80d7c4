"""The fast path of a block: it computes the same as `forward`, the definition, in less time.

It makes fewer passes over memory, and is used in eager float32 and float64. It reads the weights of
inner layers and does not call the layers. So it applies only while every inner layer is what the
block built: of the same class and settings, with real weights, without hooks, parametrisations or
wrappers.
"""

from collections.abc import Callable
from functools import wraps
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._device import DeviceContext

from cpsam.attention import _fast_operations as fast

Forward = Callable[[Any, Tensor], Tensor]

# settings that the fast path respects, or that do not matter to it
FREE = {"training", "eps", "momentum", "_is_full_backward_hook"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = (nn.Parameter, Tensor)


def try_first(shortcut: Forward) -> Callable[[Forward], Forward]:
    """Returns a decorator of `forward` that takes the shortcut where :func:`applies` is true.

    It is a decorator because TorchScript and readers then see the definition alone.
    """

    def decorate(definition: Forward) -> Forward:
        @wraps(definition)
        def forward(self: Any, x: Tensor) -> Tensor:
            return shortcut(self, x) if applies(self, x) else definition(self, x)

        return forward

    return decorate


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
    """Describes all layers in a new block, parents first, for :func:`applies`."""
    found, modules = list[Layer](), [block]
    for parent, module in enumerate(modules):  # grows in the loop
        for name, layer in module.named_children():
            found.append(describe_layer(parent, name, layer))
            modules.append(layer)
    return found


def describe_layer(parent: int, name: str, layer: nn.Module) -> Layer:
    state, tensors = vars(layer), layer._parameters | layer._buffers
    plain = [
        key
        for key, value in state.items()
        if isinstance(value, int | float | str | tuple | None) and key not in FREE
    ]
    return Layer(
        parent,
        name,
        kind=type(layer),
        forward=type(layer).forward,
        attributes=len(state),
        names=itemgetter(*plain, *HOOKS),
        settings=(*(state[key] for key in plain), *({} for _ in HOOKS)),
        children=len(layer._modules),
        tensors={key: None if t is None else t.shape for key, t in tensors.items()},
    )


def applies(block: nn.Module, x: Tensor) -> bool:
    """Returns whether the fast path applies to a block that keeps its description as ``built``.

    It looks at every inner layer in every call, so that it sees every change. Hooks on the block
    itself do not matter.
    """
    built: list[Layer] | None = block.__dict__.get("built")
    return (
        built is not None and is_ordinary(x) and not is_watched() and are_as_built(block, built, x)
    )


def is_ordinary(x: Tensor) -> bool:
    """Returns whether x is a tensor in full precision that is not traced, compiled or exported."""
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
        # torch.func and forward-mode derivatives need torch's own operations; only private
        # functions tell whether they are active
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def is_watched() -> bool:
    """Returns whether something outside sees or changes all calls of modules or functions."""
    if _has_any_global_hook() or called() != CALLED or torch._C._len_torch_dispatch_stack():
        return True
    modes = range(torch._C._len_torch_function_stack())
    # A default device changes only new tensors.
    return any(type(torch._C._get_function_stack_at(index)) is not DeviceContext for index in modes)


def called() -> tuple[Any, ...]:
    """Returns what the definition calls and the fast path may not; profilers replace these."""
    return nn.Module.__call__, nn.Conv2d._conv_forward, F.conv2d, F.linear, F.batch_norm


CALLED = called()


def are_as_built(block: nn.Module, built: list[Layer], x: Tensor) -> bool:
    """Returns whether all layers are as the block built them.

    It is one loop, because calls of functions would take longer than what they do.
    """
    device, dtype, modules = x.device, x.dtype, [block]
    for parent, name, kind, forward, attributes, names, settings, children, tensors in built:
        layer = modules[parent]._modules.get(name)
        if type(layer) is not kind or kind.forward is not forward:
            return False
        state = layer.__dict__
        # The layer has no `forward` of its own, no compiled call, no mark of a library, no hook.
        if len(state) != attributes or names(state) != settings:
            return False
        if len(state["_modules"]) != children:
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
                # the counter of a norm holds integers
                elif tensor.dtype is not dtype and tensor.dtype is not torch.int64:
                    return False
        elif state["_parameters"] or state["_buffers"]:
            return False
    return True


def cpsam(block: Any, x: Tensor) -> Tensor:
    """Computes CPSAM with one product for mean and context; in eval mode the norm is folded in."""
    given, x = x, fast.prefer_channels_last(x)
    x, context, mean, maximum = fast.squeeze(x, block.channel_squeeze.key.weight)
    context = block.channel_squeeze.transform(context)  # (N, C, 1, 1)
    gates = block.position_squeeze.gates(mean, maximum)  # (N, C, 1, 1)
    weight, before, after = block.fuse.parts(context)
    y = fast.gated_conv(x, gates, block.fuse.conv, weight, before, after, block.post_norm)
    return fast.in_format_of(given, y)


def non_local(block: Any, x: Tensor) -> Tensor:
    """Computes the embedded Gaussian with one product for query, key and value."""
    layers = (block.query, block.key, block.value)
    weight = torch.cat([fast.with_own_strides(layer.weight) for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    images = fast.prefer_channels_last(x)
    query, key, value = fast.pointwise(images, weight, bias).chunk(3, 1)  # (N, C/r, H, W)
    attended = block.attend(query, block.pool(key), block.pool(value))
    y = fast.project(attended, block.proj, block.post_norm).add_(images)  # (N, C, H, W)
    return fast.in_format_of(x, y)
