"""Runs a network as sums with positive weights, so that a gradient is zero only where no path is.

Each operation is replaced by one that reads the same positions. Norms and activations become the
identity, and a maximum becomes a mean over its window. So no gradient cancels or vanishes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

POINTWISE = """
    abs alpha_dropout batch_norm celu clamp clamp_max clamp_min clip dropout dropout2d elu erf
    exp expm1 feature_dropout float gelu group_norm half hardshrink hardsigmoid hardswish
    hardtanh instance_norm layer_norm leaky_relu local_response_norm log log1p logsigmoid mish
    neg nan_to_num pow prelu reciprocal relu relu6 rms_norm rrelu rsqrt selu sigmoid silu
    softplus softshrink softsign sqrt square tanh tanhshrink threshold
"""
IDENTITIES = frozenset(POINTWISE.split())
PRODUCTS = frozenset(["mul", "multiply", "div", "divide", "true_divide", "truediv"])
SUMS = frozenset(["sub", "subtract", "rsub", "maximum", "minimum"])
CONVOLUTIONS = frozenset(
    [
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "linear",
    ]
)
CONTRACTIONS = frozenset(["matmul", "bmm", "mm", "einsum", "rmatmul"])
MEANS = frozenset(["amax", "amin", "var", "std"])


def plain_name(func: Any) -> str:
    """Returns the name of an operation without the marks of its in-place and operator forms.

    Example:
        >>> plain_name(torch.relu_), plain_name(Tensor.__rmul__), plain_name(Tensor.__isub__)
        ('relu', 'mul', 'sub')
    """
    name = getattr(func, "__name__", "")
    plain = name.strip("_")
    reflected = plain[1:] if name.startswith("__") and plain[:1] in ("i", "r") else plain
    return reflected if reflected in PRODUCTS | {"add", "sub", "pow", "matmul"} else plain


def on_image(value: Any) -> bool:
    """Returns whether a value depends on the image."""
    return isinstance(value, Tensor) and value.requires_grad


class LinearTrace(TorchFunctionMode):
    """Replaces each operation on what depends on the image, within ``with LinearTrace():``.

    No weight may require a gradient.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(map(on_image, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        name = plain_name(func)
        result = replaced(name, func, args, kwargs)
        raw = getattr(func, "__name__", "")
        in_place = (raw.endswith("_") and not raw.startswith("__")) or raw.startswith("__i")
        if in_place and isinstance(result, Tensor) and result is not args[0]:
            changed = result.shape == args[0].shape and name in PRODUCTS | SUMS
            return args[0].copy_(result) if changed else result
        return result


def replaced(name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns what stands for an operation."""
    if name in IDENTITIES:
        return next(filter(on_image, tree_leaves((args, kwargs))))
    if name in PRODUCTS:
        return either(*args[:2], *kwargs.values(), keep_zeros=True)
    if name in SUMS:
        return either(*args[:2])
    if name in CONVOLUTIONS:
        return positive(func, *args, **kwargs)
    if name in CONTRACTIONS:
        return func(*(scaled(each) for each in args), **kwargs)
    if name in ("softmax", "log_softmax", "normalize"):
        return args[0] + args[0].mean(axis(args, kwargs), keepdim=True)
    if name == "scaled_dot_product_attention":
        query, key, value = args[:3]
        over = (key.mean(-1, keepdim=True) + value).mean(-2, keepdim=True)
        return query.mean(-1, keepdim=True) + over
    if name in MEANS or (name in ("max", "min") and (len(args) > 1 or kwargs)):
        return averaged(name, func, args, kwargs)
    if name in ("max_pool2d", "max_pool2d_with_indices"):
        return mean_pool(func, *args, **kwargs)
    if name in ("adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"):
        size = args[1] if len(args) > 1 else kwargs["output_size"]
        return F.adaptive_avg_pool2d(args[0], size)
    if name == "var_mean":
        mean = torch.mean(*args, **{k: v for k, v in kwargs.items() if k in ("dim", "keepdim")})
        return mean, mean
    return func(*args, **kwargs)


def either(first: Any, second: Any, *_: Any, keep_zeros: bool = False) -> Tensor:
    """Returns a tensor that depends on what either depends on, in the shape of both.

    Args:
        first: A tensor or a number.
        second: The same.
        keep_zeros: A constant that is zero cuts off what it is multiplied with, as a mask does.
    """
    if on_image(first) and on_image(second):
        return first + second
    kept, constant = (first, second) if on_image(first) else (second, first)
    if not isinstance(constant, Tensor):
        return kept
    mask = constant != 0 if keep_zeros else torch.ones_like(constant)
    return kept * mask.to(kept.dtype)


def positive(func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Returns a convolution or a linear layer with equal positive weights and no bias.

    All output channels of a group are equal, so one is computed, from the mean of its inputs.
    """
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    features, weight = given.pop("input"), given.pop("weight")
    given.pop("bias", None)
    if func.__name__ == "linear":
        return features.mean(-1, keepdim=True).repeat_interleave(len(weight), -1)
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    channels = 1 - weight.dim()
    mean = features.unflatten(channels, (groups, -1)).mean(channels)
    # Between a sum and a mean over the window, so that deep networks neither grow nor vanish.
    scale = weight[0, 0].numel() ** -0.5
    equal = features.new_full((groups, 1, *weight.shape[2:]), scale)
    found = func(mean, equal, None, *args[3:], **given)
    outputs = weight.shape[1] if "transpose" in func.__name__ else len(weight) // groups
    return found.repeat_interleave(outputs, channels)


def scaled(value: Any) -> Any:
    """Returns operands at most 1, so that products of products do not overflow."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(scaled, value))
    if not isinstance(value, Tensor):
        return value
    return value / value.detach().abs().max() if on_image(value) else value.abs()


def axis(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    place = 1 if len(args) < 3 or not isinstance(args[1], float) else 2
    dim = kwargs.get("dim", args[place] if len(args) > place else -1)
    return dim if isinstance(dim, (int, tuple, list)) else -1


def averaged(name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns a mean over the axes that a maximum, a minimum or a deviation is taken over."""
    if name in ("max", "min"):
        if len(args) > 1 and isinstance(args[1], Tensor):
            return either(*args[:2])
        found = func(*args, **kwargs)
        return type(found)((torch.mean(*args, **kwargs), found.indices))
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    keepdim = kwargs.get("keepdim", name in ("amax", "amin") and len(args) > 2 and args[2])
    return args[0].mean(dim, keepdim=keepdim)


def mean_pool(
    func: Any,
    features: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Returns the mean over each window of a max pool, of which the windows may be dilated."""
    size, step, around, apart = (
        (value, value) if isinstance(value, int) else tuple(value)
        for value in (kernel_size, stride or kernel_size, padding, dilation)
    )
    found = func(features, size, step, around, apart, ceil_mode)
    shape = (found[0] if isinstance(found, tuple) else found).shape[-2:]
    # As many zeros behind as the last window needs.
    behind = [
        max((n - 1) * s + d * (k - 1) + 1 - length - p, 0)
        for n, s, d, k, length, p in zip(
            shape, step, apart, size, features.shape[-2:], around, strict=True
        )
    ]
    padded = F.pad(features, (around[1], behind[1], around[0], behind[0]))
    channels = features.shape[-3]
    mean = features.new_full((channels, 1, *size), 1 / (size[0] * size[1]))
    pooled = F.conv2d(padded, mean, stride=step, dilation=apart, groups=channels)
    pooled = pooled[..., : shape[0], : shape[1]]
    return (pooled, found[1]) if isinstance(found, tuple) else pooled


def make_positive(model: nn.Module) -> None:
    """Changes a network in place: float64, evaluation mode, positive weights without gradients."""
    model.double().eval().requires_grad_(False)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point():
                weight.abs_().add_(0.01)
