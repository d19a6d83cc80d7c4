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
    """Softmax over the last axis in float32, because autocast on a CPU would leave it in bfloat16;
    float64 stays float64.
    """
    return logits.softmax(
        -1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32
    )


def context_pool(x: Tensor, logits: Tensor) -> Tensor:
    """Attention-pool the positions: ``sum_l softmax(logits)_l x_l``.

    Args:
        x: Features, (N, C, H, W).
        logits: One score a position, the same for every query, (N, 1, H, W).

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
    """Mean and maximum over the positions of (N, C, H, W), each (N, C, 1, 1)."""
    return x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)


def channel_affinity(mean: Tensor, maximum: Tensor, tau: Tensor) -> Tensor:
    """Relate all channels to all: ``A a`` with ``A = softmax_j(tau * a_i * b_j)``, a and b being
    `mean` and `maximum` normalised over the channels.

    Args:
        mean: (N, C, 1, 1).
        maximum: (N, C, 1, 1).
        tau: Sharpness of the affinity, one number.

    Returns:
        For each channel, what the channels akin to it hold on average, (N, C, 1, 1).
    """
    a, b = standardise(mean.flatten(1)), standardise(maximum.flatten(1))  # (N, C)
    attn = softmax(tau * a.unsqueeze(2) * b.unsqueeze(1))  # (N, C, C)
    return (attn @ a.unsqueeze(2)).unsqueeze(-1).to(mean.dtype)  # (N, C, 1, 1)


def standardise(x: Tensor) -> Tensor:
    """Returns ``F.layer_norm`` over the last axis, at least in float32. The older ONNX exporter
    cannot give that function its size.
    """
    centred = at_least_float32(x)
    centred = centred - centred.mean(-1, keepdim=True)
    return centred * ((centred * centred).mean(-1, keepdim=True) + 1e-5).rsqrt()


def channel_attention(x: Tensor) -> Tensor:
    """``softmax(X X^T) X`` with X the (C, L) features of each image of (N, C, H, W)."""
    rows = x.flatten(2)  # (N, C, L)
    attn = softmax(squared(rows)).to(x.dtype)  # (N, C, C)
    return (attn @ rows).view_as(x)


@torch.fx.wrap
def squared(rows: Tensor) -> Tensor:
    """Returns ``X X^T`` in float32 or float64, also under autocast: sums of squares over a map
    leave the range of float16.
    """
    rows = at_least_float32(rows)
    if torch.jit.is_scripting() or rows.is_meta:  # where there is no autocast to leave
        return rows @ rows.transpose(1, 2)
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.transpose(1, 2)


@torch.fx.wrap
def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """``softmax(scale * query^T key)`` applied to `value`; the L x L map is never held whole.

    Args:
        query: (N, D, H, W).
        key: (N, D, H', W').
        value: (N, V, H', W').
        scale: Factor on the logits. No default: this family of code has shipped wrong ones more
            than once.

    Returns:
        (N, V, H, W).
    """
    # (N, 1, L, D), one head
    rows = [t.flatten(2).transpose(1, 2).unsqueeze(1) for t in (query, key, value)]
    out = attend_rows(rows[0], rows[1], rows[2], scale)  # (N, 1, L, V)
    return out.squeeze(1).transpose(1, 2).unflatten(2, query.shape[2:])


@torch.fx.wrap  # a leaf of traces, which cannot ask for strides
def attend_rows(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    if not torch.jit.is_scripting() and not torch.jit.is_tracing():
        return attend_rows_eagerly(query, key, value, scale)
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def attend_rows_definition(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The map written out."""
    return softmax(scale * query @ key.transpose(2, 3)).to(value.dtype) @ value


def attend_rows_eagerly(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attends with torch's fused kernels, which want rows of one width, next to each other;
    otherwise torch writes the map out.
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
    """Rows with zeros at their ends, which change neither products nor sums."""
    width = max(t.shape[3] for t in rows)
    if rows[0].is_cuda:
        width += -width % 8
    return [
        F.pad(t, (0, width - t.shape[3]))
        if t.shape[3] < width
        else t
        if t.stride(3) == 1
        else t.contiguous()
        for t in rows
    ]


class TwiceDifferentiable(torch.autograd.Function):
    """Gives fused attention, `out`, second derivatives: those of the definition, on the tensors
    that the kernel keeps anyway.
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
    """Whether this backward pass is to be differentiated, or has many gradients at once: only
    torch's own operations can do that.
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
    """Returns the gradients of ``definition(*inputs)`` by torch's own operations; None for inputs
    that need none.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # where an input depends on another, the search for gradients ends here
        views = [t.view_as(t) for t in inputs]
        outputs = definition(*views)
    found = iter(
        torch.autograd.grad(
            outputs, [t for t in views if t.requires_grad], grads, create_graph=again
        )
    )
    return tuple(next(found) if t.requires_grad else None for t in views)


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``(query^T key) / L'`` applied to `value`, without a softmax; shapes as in
    :func:`softmax_attention`.
    """
    keys = key.flatten(2)  # (N, D, L')
    attn = query.flatten(2).transpose(1, 2) @ (keys / keys.shape[2])  # (N, L, L')
    return (value.flatten(2) @ attn.transpose(1, 2)).unflatten(2, query.shape[2:])


def concatenation_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``relu(query_i + key_j) / L'`` applied to `value`.

    `query` and `key` are the two halves of the projected concatenation, (N, 1, H, W) and (N, 1, H',
    W'): ``w [q_i, k_j] = w_q q_i + w_k k_j``, so the (N, 2D, L, L') tensor of all pairs is never
    built. `value` and the result as in :func:`softmax_attention`.
    """
    logits = query.flatten(2).transpose(1, 2) + key.flatten(2)  # (N, L, L')
    attn = logits.relu() / logits.shape[2]
    return (value.flatten(2) @ attn.transpose(1, 2)).unflatten(2, query.shape[2:])
