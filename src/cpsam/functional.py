"""The maths of the blocks as pure functions of tensors.

Letters: N images, C channels, H x W positions, L = H * W.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad


@torch.fx.wrap  # a leaf of traces, which cannot ask for a dtype
def softmax(logits: Tensor) -> Tensor:
    """Returns the softmax over the last axis in float32, or in float64 for float64.

    Autocast on a CPU would compute it in bfloat16.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.softmax(-1, dtype=dtype)


def context_pool(x: Tensor, logits: Tensor) -> Tensor:
    """Pools the positions by attention: ``sum_l softmax(logits)_l x_l``.

    Args:
        x: Features, (N, C, H, W).
        logits: One score per position, the same for every query, (N, 1, H, W).

    Returns:
        The context, (N, C, 1, 1).

    Example:
        >>> x = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> context_pool(x, torch.zeros(1, 1, 2, 3)).item()
        2.5
    """
    attn = softmax(logits.flatten(2)).to(x.dtype)  # (N, 1, L)
    return (x.flatten(2) @ attn.transpose(1, 2)).unsqueeze(-1)  # (N, C, 1, 1)


def position_squeeze(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and maximum over the positions of (N, C, H, W), each (N, C, 1, 1)."""
    return x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)


def channel_affinity(mean: Tensor, maximum: Tensor, tau: Tensor) -> Tensor:
    """Relates each channel to all channels: ``A a`` with ``A = softmax_j(tau * a_i * b_j)``.

    a and b are `mean` and `maximum`, each normalised over the channels.

    Args:
        mean: (N, C, 1, 1).
        maximum: (N, C, 1, 1).
        tau: Sharpness of the affinity, one number.

    Returns:
        For each channel the weighted mean of the channels related to it, (N, C, 1, 1).
    """
    a, b = standardise(mean.flatten(1)), standardise(maximum.flatten(1))  # (N, C)
    attn = softmax(tau * a.unsqueeze(2) * b.unsqueeze(1))  # (N, C, C)
    return (attn @ a.unsqueeze(2)).unsqueeze(-1).to(mean.dtype)  # (N, C, 1, 1)


def standardise(x: Tensor) -> Tensor:
    """Returns ``F.layer_norm`` over the last axis, at least in float32.

    It is written out because the older ONNX exporter cannot export that function.
    """
    centred = at_least_float32(x)
    centred = centred - centred.mean(-1, keepdim=True)
    return centred * ((centred * centred).mean(-1, keepdim=True) + 1e-5).rsqrt()


def channel_attention(x: Tensor) -> Tensor:
    """Returns ``softmax(X X^T) X`` with X the (C, L) features of each image of (N, C, H, W)."""
    rows = x.flatten(2)  # (N, C, L)
    attn = softmax(squared(rows)).to(x.dtype)  # (N, C, C)
    return (attn @ rows).view_as(x)


@torch.fx.wrap
def squared(rows: Tensor) -> Tensor:
    """Returns ``X X^T`` in float32 or float64, also under autocast.

    Sums of squares over a map overflow in float16.
    """
    rows = at_least_float32(rows)
    if torch.jit.is_scripting() or rows.is_meta:  # autocast is not active there
        return rows @ rows.transpose(1, 2)
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.transpose(1, 2)


@torch.fx.wrap
def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Applies ``softmax(scale * query^T key)`` to `value`, and never holds the whole L x L map.

    Args:
        query: (N, D, H, W).
        key: (N, D, H', W').
        value: (N, V, H', W').
        scale: Factor on the logits. It has no default, because libraries have shipped wrong ones
            more than once.

    Returns:
        (N, V, H, W).
    """
    tensors = (query, key, value)
    rows = [t.flatten(2).transpose(1, 2).unsqueeze(1) for t in tensors]  # (N, 1, L, D), one head
    out = attend_rows(rows[0], rows[1], rows[2], scale)  # (N, 1, L, V)
    return out.squeeze(1).transpose(1, 2).unflatten(2, query.shape[2:])


@torch.fx.wrap  # a leaf of traces, which cannot ask for strides
def attend_rows(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    if not torch.jit.is_scripting() and not torch.jit.is_tracing():
        return attend_rows_eagerly(query, key, value, scale)
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def attend_rows_definition(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Computes the map as a tensor, and applies it."""
    return softmax(scale * query @ key.transpose(2, 3)).to(value.dtype) @ value


def attend_rows_eagerly(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attends with torch's kernels that do not hold the map.

    They take rows of one width that are contiguous; for other rows torch holds the map.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return attend_rows_definition(query, key, value, scale)
    width = value.shape[3]
    rows = [query, key, value] if query.is_meta else same_width(query, key, value)
    out = F.scaled_dot_product_attention(rows[0], rows[1], rows[2], scale=scale)
    if out.requires_grad and not torch.compiler.is_compiling():
        out = TwiceDifferentiable.apply(out, *rows, scale)
    return out[..., :width]


def same_width(*rows: Tensor) -> list[Tensor]:
    """Returns rows padded with zeros to one width, which changes neither products nor sums."""
    width = max(t.shape[3] for t in rows)
    if rows[0].is_cuda:
        width += -width % 8
    return [as_wide(t, width) for t in rows]


def as_wide(row: Tensor, width: int) -> Tensor:
    if row.shape[3] < width:
        return F.pad(row, (0, width - row.shape[3]))
    return row if row.stride(3) == 1 else row.contiguous()


class TwiceDifferentiable(torch.autograd.Function):
    """Gives `out`, which one of torch's kernels computed, the second derivatives of the definition.

    It saves only the tensors that the kernel saves too.
    """

    @staticmethod
    def forward(
        ctx: Any, out: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not wants_definition(grads[0]):
            return grads[0], None, None, None, None
        scaled = partial(attend_rows_definition, scale=ctx.scale)
        return None, *derivatives(scaled, ctx.saved_tensors, grads), None


def wants_definition(grad: Tensor) -> bool:
    """Returns whether a backward pass needs torch's own operations.

    It does if it will be differentiated, or computes many gradients at once.
    """
    functorch = torch._C._functorch  # there is no public way to ask
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or functorch.is_legacy_batchedtensor(grad)
    )


def derivatives(
    definition: Callable[..., Any], inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Returns the gradients of ``definition(*inputs)`` by torch's own operations.

    The gradient of an input that needs none is None.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        views = [t.view_as(t) for t in inputs]  # the backward pass ends at them
        outputs = definition(*views)
    wanted = [t for t in views if t.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=again))
    return tuple(next(found) if t.requires_grad else None for t in views)


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Applies ``(query^T key) / L'``, without a softmax, to `value`.

    The shapes are those of :func:`softmax_attention`.
    """
    keys = key.flatten(2)  # (N, D, L')
    attn = query.flatten(2).transpose(1, 2) @ (keys / keys.shape[2])  # (N, L, L')
    return (value.flatten(2) @ attn.transpose(1, 2)).unflatten(2, query.shape[2:])


def concatenation_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Applies ``relu(query_i + key_j) / L'`` to `value`.

    `query` and `key` are the two halves of the projected concatenation, (N, 1, H, W) and
    (N, 1, H', W'): ``w [q_i, k_j] = w_q q_i + w_k k_j``. So the (N, 2D, L, L') tensor of all pairs
    is never built. `value` and the result are as in :func:`softmax_attention`.
    """
    logits = query.flatten(2).transpose(1, 2) + key.flatten(2)  # (N, L, L')
    attn = logits.relu() / logits.shape[2]
    return (value.flatten(2) @ attn.transpose(1, 2)).unflatten(2, query.shape[2:])
