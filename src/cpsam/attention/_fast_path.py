"""When a block goes the fast way, and what it computes there: the same as its `forward`, the definition, in fewer passes over memory.

The fast way reads the weights of inner layers instead of calling them. So it is taken only while every inner layer is what the block
built, and no more: of the same class and settings, without hooks, parametrisations or wrappers, with real weights.
"""

from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from cpsam import fused

FREE = {"training", "eps", "momentum", "_is_full_backward_hook"}  # settings that the fast way respects, or that mean nothing to it


class Built(NamedTuple):
    """What a layer is besides the values of its weights."""

    kind: type[nn.Module]
    forward: Any
    attributes: int
    names: itemgetter
    settings: Any
    parameters: dict[str, torch.Size | None]
    buffers: dict[str, torch.Size | None]
    children: dict[str, "Built"]


def describe(layer: nn.Module) -> Built:
    """Describes a new layer and all in it, for :func:`applies` to compare with later."""

    def shapes(tensors: dict[str, Any]) -> dict[str, torch.Size | None]:
        return {name: None if tensor is None else tensor.shape for name, tensor in tensors.items()}

    state = vars(layer)
    plain = [name for name, value in state.items() if isinstance(value, int | float | str | tuple | None) and name not in FREE]
    names = itemgetter(*(plain or ["_non_persistent_buffers_set"]))
    children = {name: describe(child) for name, child in layer.named_children()}
    parameters, buffers = shapes(layer._parameters), shapes(layer._buffers)
    return Built(type(layer), type(layer).forward, len(state), names, names(state), parameters, buffers, children)


def applies(block: nn.Module, x: Tensor) -> bool:
    """Whether `block`, which kept its own description as ``built``, may go the fast way with `x`. Hooks on the block itself do not matter.

    It looks at every inner layer in every call, so that it never misses a change.
    """
    if not is_ordinary(x) or _has_any_global_hook():
        return False
    built: Built | None = vars(block).get("built")
    return built is not None and children_are_as_built(block, built, x)


def is_ordinary(x: Tensor) -> bool:
    """Whether an input is an ordinary tensor in full precision, which nobody traces, compiles, exports or transforms."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        type(x) is Tensor
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() == 4
        and x.layout is torch.strided
        and not x.is_meta
        and not torch.is_autocast_enabled(x.device.type)
        # The rest wants torch's own operations. There is no public way to ask for it.
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch._C._len_torch_dispatch_stack()
    )


def children_are_as_built(module: nn.Module, built: Built, x: Tensor) -> bool:
    children = module._modules
    if children.keys() != built.children.keys():
        return False
    for name, child in built.children.items():  # noqa: SIM110 - a generator takes twice the time
        if not is_as_built(children[name], child, x):
            return False
    return True


def is_as_built(layer: nn.Module | None, built: Built, x: Tensor) -> bool:
    if type(layer) is not built.kind or built.kind.forward is not built.forward:
        return False
    state = vars(layer)
    return (
        len(state) == built.attributes  # no ``forward`` of its own, no compiled call, no mark of a library
        and built.names(state) == built.settings
        and not (state["_forward_hooks"] or state["_forward_pre_hooks"] or state["_backward_hooks"] or state["_backward_pre_hooks"])
        and are_real(state["_parameters"], built.parameters, x)
        and are_real(state["_buffers"], built.buffers, x)
        and children_are_as_built(layer, built, x)
    )


def are_real(tensors: dict[str, Any], shapes: dict[str, torch.Size | None], x: Tensor) -> bool:
    """Whether tensors have their shapes, no special class, and the device and dtype of x; counters have a dtype of their own."""
    if tensors.keys() != shapes.keys():
        return False
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor is None or shape is None:
            if tensor is not shape:
                return False
        elif (
            (type(tensor) is not nn.Parameter and type(tensor) is not Tensor)
            or tensor.shape != shape
            or tensor.device != x.device
            or (tensor.dtype is not x.dtype and tensor.dtype is not torch.int64)
        ):
            return False
    return True


def cpsam(block: Any, x: Tensor) -> Tensor:
    """CPSAM with one product for mean and context; in eval mode the norm is inside the weights of the convolution."""
    given, x = x, fused.prefer_channels_last(x)
    x, context, mean, maximum = fused.squeeze(x, block.channel_squeeze.key.weight)
    context = block.channel_squeeze.transform(context)  # (N, C, 1, 1)
    gates = block.position_squeeze.gates(mean, maximum)  # (N, C, 1, 1)
    weight, before, after = block.fusing_conv.split(context)
    return fused.like(fused.fuse(x, gates, block.fusing_conv.conv, weight, before, after, block.batch_norm), given)


def non_local(block: Any, x: Tensor) -> Tensor:
    """Embedded Non-Local with one product for query, key and value, and rows of channels, (N, L, C/r), all the way."""
    layers = (block.query, block.key, block.value)
    weight = torch.cat([fused.with_own_strides(layer.weight) for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    images = fused.prefer_channels_last(x)
    query, key, value = fused.pointwise(images, weight, bias).chunk(3, 1)  # (N, C/r, H, W)
    attended = block.attend(query, block.pool(key), block.pool(value))
    return fused.like(fused.project(attended, block.proj, block.batch_norm).add_(images), x)
