"""The maths of the blocks as pure functions of tensors.

Letters: N images, C channels, H x W positions, L = H * W.
"""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor


@torch.fx.wrap  # a leaf of traces, which cannot ask for a dtype
def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis in float32, because autocast on a CPU would leave it in bfloat16; float64 stays float64."""
    return logits.softmax(-1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)


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
    """Relate all channels to all: ``A a`` with ``A = softmax_j(tau * a_i * b_j)``, a and b being `mean` and `maximum` normalised over the
    channels.

    Args:
        mean: (N, C, 1, 1).
        maximum: (N, C, 1, 1).
        tau: Sharpness of the affinity, one number.

    Returns:
        For each channel, what the channels akin to it hold on average, (N, C, 1, 1).
    """
    a = F.layer_norm(mean.flatten(1), mean.shape[1:2])  # (N, C)
    b = F.layer_norm(maximum.flatten(1), maximum.shape[1:2])
    logits = tau * a.unsqueeze(2) * b.unsqueeze(1)  # (N, C, C)
    attn = softmax(logits).to(a.dtype)
    return (attn @ a.unsqueeze(2)).unsqueeze(-1)  # (N, C, 1, 1)


def channel_attention(x: Tensor) -> Tensor:
    """``softmax(X X^T) X`` with X the (C, L) features of each image of (N, C, H, W)."""
    rows = x.flatten(2)  # (N, C, L)
    logits = rows @ rows.transpose(1, 2)  # (N, C, C)
    attn = softmax(logits).to(x.dtype)
    return (attn @ rows).unflatten(2, x.shape[2:])


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """``softmax(scale * query^T key)`` applied to `value`; the L x L map is never held whole.

    Args:
        query: (N, D, H, W).
        key: (N, D, H', W').
        value: (N, V, H', W').
        scale: Factor on the logits. No default: this family of code has shipped wrong ones more than once.

    Returns:
        (N, V, H, W).
    """
    rows = [t.flatten(2).transpose(1, 2).unsqueeze(1) for t in (query, key, value)]  # (N, 1, L, D), one head
    out = F.scaled_dot_product_attention(rows[0], rows[1], rows[2], scale=scale)  # (N, 1, L, V)
    return out.squeeze(1).transpose(1, 2).unflatten(2, query.shape[2:])


def dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``(query^T key) / L'`` applied to `value`, without a softmax; shapes as in :func:`softmax_attention`."""
    keys = key.flatten(2)  # (N, D, L')
    attn = query.flatten(2).transpose(1, 2) @ (keys / keys.shape[2])  # (N, L, L')
    return (value.flatten(2) @ attn.transpose(1, 2)).unflatten(2, query.shape[2:])


def concatenation_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``relu(query_i + key_j) / L'`` applied to `value`.

    `query` and `key` are the two halves of the projected concatenation, (N, 1, H, W) and (N, 1, H', W'): ``w [q_i, k_j] = w_q q_i + w_k
    k_j``, so the (N, 2D, L, L') tensor of all pairs is never built. `value` and the result as in :func:`softmax_attention`.
    """
    logits = query.flatten(2).transpose(1, 2) + key.flatten(2)  # (N, L, L')
    attn = logits.relu() / logits.shape[2]
    return (value.flatten(2) @ attn.transpose(1, 2)).unflatten(2, query.shape[2:])
