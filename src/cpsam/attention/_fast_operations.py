"""The operations of the fast path, with fewer passes over memory; `functional` has the definitions.

On a map of ordinary size a processor waits for memory, not for arithmetic. So the number of times
that x is read and written counts. Forward, one product gives mean and context. Backward, each
function returns x as its first result. The gradient that comes back for it is the sum over all that
follows, and the function adds its own part in the same pass. Autograd would write each part and
then add them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpsam.functional import context_pool, derivatives, position_squeeze, softmax, wants_definition

CACHED_VALUES = 2**18  # 1 MiB in float32: half of the second-level cache of a core


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def prefer_channels_last(x: Tensor) -> Tensor:
    """Returns x in channels-last on a CPU, where this saves more time than two copies cost."""
    if x.device.type != "cpu" or is_channels_last(x):
        return x
    return Reformat.apply(x, torch.channels_last)


def in_format_of(x: Tensor, y: Tensor) -> Tensor:
    """Returns y in the memory format of x."""
    return y if is_channels_last(y) == is_channels_last(x) else Reformat.apply(y, memory_format(x))


class Reformat(torch.autograd.Function):
    """Changes the memory format, and changes that of the gradient back.

    The gradient of torch's own ``x.contiguous(memory_format=...)`` would keep the outer format, so
    that every layer inside would have to work with two formats at once.
    """

    @staticmethod
    def forward(ctx, x: Tensor, wanted: torch.memory_format) -> Tensor:
        ctx.given = memory_format(x)
        return x.contiguous(memory_format=wanted)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        (dx,) = grads
        return dx if wants_definition(dx) else dx.contiguous(memory_format=ctx.given), None


def with_own_strides(weight: Tensor) -> Tensor:
    """Returns the weight, and gives its gradient the strides of the weight."""
    return OwnStrides.apply(weight)


class OwnStrides(torch.autograd.Function):
    """Gives a gradient the strides of its weight, which distributed training wants.

    Convolutions in channels-last give other strides.
    """

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        ctx.strides = weight.stride()
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor]:
        (dweight,) = grads
        expanded = 0 in ctx.strides
        if wants_definition(dweight) or dweight.stride() == ctx.strides or expanded:
            return (dweight,)
        like = {"dtype": dweight.dtype, "device": dweight.device}
        return (torch.empty_strided(dweight.shape, ctx.strides, **like).copy_(dweight),)


def as_matrices(x: Tensor) -> tuple[Tensor, bool]:
    """Returns (N, C, H, W) as matrices, without a copy where the memory allows it.

    Returns:
        (N, L, C) and True for channels-last, else (N, C, L) and False.
    """
    if is_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(1, 2), True
    return x.flatten(2), False


def squeeze(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes both squeezes of CPSAM: ``x, context_pool(x, key * x), *position_squeeze(x)``.

    Args:
        x: (N, C, H, W).
        key: Weights of the 1x1 convolution that gives the logits, (1, C, 1, 1).

    Returns:
        x, to be used in its place from here on, and context, mean and maximum, each (N, C, 1, 1).
    """
    return Squeeze.apply(x, with_own_strides(key))


def squeeze_definition(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x.view_as(x), context_pool(x, F.conv2d(x, key)), *position_squeeze(x)


class Squeeze(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        matrix, last = as_matrices(x)
        logits = matrix @ key.view(-1) if last else key.view(-1) @ matrix  # (N, L)
        attn = softmax(logits)
        both = torch.stack([attn, torch.full_like(attn, 1 / attn.shape[1])], 1)  # (N, 2, L)
        pooled = rows_of(both, matrix, last)  # (N, 2, C)
        context, mean = pooled.unsqueeze(-1).unsqueeze(-1).unbind(1)  # (N, C, 1, 1)
        # The maximum is reduced along the axis that is quicker in this memory format.
        rows = x.permute(0, 2, 3, 1).amax(2).transpose(1, 2) if last else x.amax(3)  # (N, C, H)
        maximum = rows.amax(2)[..., None, None]  # (N, C, 1, 1)
        ctx.save_for_backward(x, key, both, rows, maximum)
        return x, context, mean, maximum

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, key, both, rows, maximum = ctx.saved_tensors
        if any(map(wants_definition, grads)):
            return derivatives(squeeze_definition, (x, key), grads)
        dx, dcontext, dmean, dmaximum = grads
        matrix, last = as_matrices(x)
        dcontext = dcontext.flatten(1).unsqueeze(1)  # (N, 1, C)
        attn = both[:, :1]  # (N, 1, L)
        by_position = matrix @ dcontext.transpose(1, 2) if last else dcontext @ matrix
        dattn = by_position.transpose(1, 2) if last else by_position  # (N, 1, L)
        dlogits = attn * (dattn - (attn * dattn).sum(2, keepdim=True))
        dkey = rows_of(dlogits, matrix, last).sum(0).view_as(key)
        positions = torch.cat([both, dlogits], 1)  # (N, 3, L)
        weights = key.view(1, 1, -1).expand_as(dcontext)
        channels = torch.cat([dcontext, dmean.flatten(1).unsqueeze(1), weights], 1)  # (N, 3, C)
        # In place: `Gate` has just made dx, and nothing else holds it.
        total, total_last = as_matrices(dx)
        if total_last:
            total.baddbmm_(positions.transpose(1, 2), channels)
        else:
            total.baddbmm_(channels.transpose(1, 2), positions)
        add_at_maximum(dx, x, rows, maximum, dmaximum)
        return dx, dkey


def rows_of(weights: Tensor, matrix: Tensor, last: bool) -> Tensor:
    """Returns the sums over the positions of (N, K, L) weights times the features, (N, K, C)."""
    return weights @ matrix if last else (matrix @ weights.transpose(1, 2)).transpose(1, 2)


def add_at_maximum(
    total: Tensor, x: Tensor, rows: Tensor, maximum: Tensor, dmaximum: Tensor
) -> None:
    """Adds `dmaximum` to `total` where x has its maximum, in place.

    Several equal maxima get equal parts.
    """
    if x.device.type != "cpu":  # the search for the few rows would make the host wait
        winners = x == maximum
        total.addcmul_(winners.to(x.dtype), dmaximum / winners.sum((2, 3), keepdim=True))
        return
    # M >= N * C rows have the maximum, and K >= N * C positions.
    image, channel, row = (rows == maximum.squeeze(-1)).nonzero().unbind(1)  # (M,)
    at_maximum = x[image, channel, row] == maximum.flatten(1)[image, channel, None]
    found, column = at_maximum.nonzero().unbind(1)  # (K,)
    image, channel, row = image[found], channel[found], row[found]
    count = torch.zeros_like(dmaximum).flatten(1)  # (N, C)
    count.index_put_((image, channel), count.new_ones(()), accumulate=True)
    total[image, channel, row, column] += (dmaximum.flatten(1) / count)[image, channel]


def gate(x: Tensor, gates: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns x, to be used in its place from here on, and ``gates * x + context``.

    Args:
        x: (N, C, H, W).
        gates: (N, C, 1, 1).
        context: (N, C, 1, 1), or None for zero.
    """
    return Gate.apply(x, gates, context)


def gate_definition(x: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    return x.view_as(x), gates * x


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gates: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, gates)
        return x, gates * x if context is None else torch.addcmul(context, x, gates)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dp = grads
        x, gates = ctx.saved_tensors
        dcontext = dp.sum((2, 3), keepdim=True) if ctx.needs_input_grad[2] else None
        if any(map(wants_definition, grads)):
            return *derivatives(gate_definition, (x, gates), grads), dcontext
        dgates = sum_of_products(dp, x)
        # In place, as in `Squeeze`: the convolution has just made dp.
        return torch.addcmul(dx, dp, gates, out=dp), dgates, dcontext


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Returns ``(a * b).sum((2, 3), keepdim=True)``.

    On a CPU it takes a few images at a time, so that the product stays in the cache.
    """
    images = max(1, CACHED_VALUES // a.shape[1:].numel()) if a.device.type == "cpu" else len(a)
    parts = zip(a.split(images), b.split(images), strict=True)
    return torch.cat([(one * other).sum((2, 3), keepdim=True) for one, other in parts])


def gated_conv(
    x: Tensor,
    gates: Tensor,
    conv: nn.Conv2d,
    weight: Tensor,
    before: Tensor | None,
    after: Tensor | None,
    norm: nn.Module,
) -> Tensor:
    """Computes ``x + norm(conv(gates * x + before) + after)``.

    A norm that is a fixed affine function is folded into the weights of the convolution, anew in
    every call. A depthwise convolution commutes with the gates, so that only its result is stored.

    Args:
        x: (N, C, H, W).
        gates: (N, C, 1, 1).
        conv: The convolution, without a bias.
        weight: Its weights, or those of them that meet x.
        before: (N, C, 1, 1), or None for zero.
        after: (N, C, 1, 1), or None for zero.
        norm: BatchNorm or Identity.
    """
    weight = with_own_strides(weight)
    if (affine := fixed_affine(norm)) is None:
        x, p = gate(x, gates, before)
        z = conv._conv_forward(p, weight, None)
        return norm(z if after is None else z.add_(after)).add_(x)
    scale, shift = affine
    if before is None and conv.groups == x.shape[1] and not torch.is_grad_enabled():
        z = conv._conv_forward(x, weight, None)
        added = shift if after is None else torch.addcmul(shift, after, scale)
        return torch.addcmul(x, z, gates * scale, out=z).add_(added)
    x, p = gate(x, gates, before)
    z = conv._conv_forward(p, weight * scale.unsqueeze(-1), shift.flatten())
    return (z if after is None else z.add_(after * scale)).add_(x)


def fixed_affine(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Returns scale and shift, each (C, 1, 1), of a BatchNorm in eval mode, else None."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.training:
        return None
    if norm.running_mean is None or norm.running_var is None:
        return None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale.view(-1, 1, 1), (norm.bias - norm.running_mean * scale).view(-1, 1, 1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Computes a 1x1 convolution, as a product of matrices where a backward pass follows.

    torch is quicker with the product there.
    """
    if not torch.is_grad_enabled():
        return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def project(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """Computes ``norm(conv(x))`` of a 1x1 convolution."""
    weight = with_own_strides(conv.weight)
    if (affine := fixed_affine(norm)) is None or conv.bias is None:
        return norm(pointwise(x, weight, conv.bias))
    scale, shift = affine
    bias = torch.addcmul(shift, conv.bias.view(-1, 1, 1), scale)  # (C, 1, 1)
    return pointwise(x, weight * scale.unsqueeze(-1), bias.flatten())
