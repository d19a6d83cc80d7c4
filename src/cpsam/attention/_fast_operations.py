"""Fewer passes over memory for what CPSAM does to its large tensors; the definitions are in
`functional`.

On a map of ordinary size a processor waits for memory, not for arithmetic, so what counts is how
often x is read and written. Forward, mean and context come from one product. Backward, every
function hands x on as its first result: what comes back for it there is the sum over all that
follows, and the function's own share is added in the same pass, where autograd would write each
share and then add them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpsam.functional import context_pool, derivatives, position_squeeze, softmax, wants_definition

CACHED_VALUES = 2**18  # 1 MiB in float32: half of the second-level cache of a core


def prefer_channels_last(x: Tensor) -> Tensor:
    """x in the memory format that is quick on its device: on a CPU channels-last, where two copies
    cost less than they bring.
    """
    return (
        Reformat.apply(x, torch.channels_last)
        if x.device.type == "cpu" and not is_channels_last(x)
        else x
    )


def like(y: Tensor, x: Tensor) -> Tensor:
    """y in the memory format of x."""
    return y if is_channels_last(y) == is_channels_last(x) else Reformat.apply(y, memory_format(x))


class Reformat(torch.autograd.Function):
    """``x.contiguous(memory_format=...)`` whose gradient takes the way back: torch's own would
    leave it in the format of the outer network, and every layer inside would have to cope with two
    formats at once.
    """

    @staticmethod
    def forward(ctx, x: Tensor, wanted: torch.memory_format) -> Tensor:
        ctx.given = memory_format(x)
        return x.contiguous(memory_format=wanted)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        (dx,) = grads
        return dx if wants_definition(dx) else dx.contiguous(memory_format=ctx.given), None


def memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def with_own_strides(weight: Tensor) -> Tensor:
    """The weight, whose gradient shall have its strides."""
    return OwnStrides.apply(weight)


class OwnStrides(torch.autograd.Function):
    """Distributed training wants gradients with the strides of their weights, and convolutions in
    channels-last give others.
    """

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        ctx.strides = weight.stride()
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (dweight,) = grads
        # of an expanded weight
        if wants_definition(dweight) or dweight.stride() == ctx.strides or 0 in ctx.strides:
            return dweight
        return torch.empty_strided(
            dweight.shape, ctx.strides, dtype=dweight.dtype, device=dweight.device
        ).copy_(dweight)


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def as_matrices(x: Tensor) -> tuple[Tensor, bool]:
    """(N, C, H, W) as matrices without a copy, where its memory allows: (N, L, C) and True for
    channels-last, else (N, C, L) and False.
    """
    if is_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(1, 2), True
    return x.flatten(2), False


def squeeze(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both squeezes of CPSAM: ``x, context_pool(x, key * x), *position_squeeze(x)``.

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
        # (N, 2, C)
        pooled = both @ matrix if last else (matrix @ both.transpose(1, 2)).transpose(1, 2)
        context, mean = pooled.unsqueeze(-1).unsqueeze(-1).unbind(1)  # (N, C, 1, 1)
        # (N, C, H): where the maximum is, to within a row. Of two orders of the axes the quick one
        # is that of the memory.
        rows = x.permute(0, 2, 3, 1).amax(2).transpose(1, 2) if last else x.amax(3)
        maximum = rows.amax(2)[..., None, None]
        ctx.save_for_backward(x, key, both, rows, maximum)
        return x, context, mean, maximum

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, key, both, rows, maximum = ctx.saved_tensors
        if any(map(wants_definition, grads)):
            return derivatives(squeeze_definition, (x, key), grads)
        dx, dcontext, dmean, dmaximum = grads
        matrix, last = as_matrices(x)
        context_rows = dcontext.flatten(1).unsqueeze(1)  # (N, 1, C)
        attn = both[:, :1]  # (N, 1, L)
        # (N, 1, L)
        dattn = (
            (matrix @ context_rows.transpose(1, 2)).transpose(1, 2)
            if last
            else context_rows @ matrix
        )
        dlogits = attn * (dattn - (attn * dattn).sum(2, keepdim=True))
        dkey = (
            (dlogits @ matrix if last else (matrix @ dlogits.transpose(1, 2)).transpose(1, 2))
            .sum(0)
            .view_as(key)
        )
        positions = torch.cat([both, dlogits], 1)  # (N, 3, L)
        # (N, 3, C)
        channels = torch.cat(
            [
                context_rows,
                dmean.flatten(1).unsqueeze(1),
                key.view(1, 1, -1).expand_as(context_rows),
            ],
            1,
        )
        # In place: dx is what `gate` has just made, and nobody else holds it.
        total, total_last = as_matrices(dx)
        if total_last:
            total.baddbmm_(positions.transpose(1, 2), channels)
        else:
            total.baddbmm_(channels.transpose(1, 2), positions)
        add_at_maximum(dx, x, rows, maximum, dmaximum)
        return dx, dkey


def add_at_maximum(
    total: Tensor, x: Tensor, rows: Tensor, maximum: Tensor, dmaximum: Tensor
) -> None:
    """Add `dmaximum` to `total` where x has its maximum, in equal parts where it has it several
    times. In place.
    """
    if x.device.type != "cpu":  # to look for the few rows would make the host wait for the device
        winners = x == maximum
        total.addcmul_(winners.to(x.dtype), dmaximum / winners.sum((2, 3), keepdim=True))
        return
    # (M,), M at least N * C
    image, channel, row = (rows == maximum.squeeze(-1)).nonzero().unbind(1)
    # (K,), K at least N * C
    found, column = (
        (x[image, channel, row] == maximum.flatten(1)[image, channel, None]).nonzero().unbind(1)
    )
    image, channel, row = image[found], channel[found], row[found]
    count = torch.zeros_like(dmaximum).flatten(1)  # (N, C)
    count.index_put_((image, channel), count.new_ones(()), accumulate=True)
    total[image, channel, row, column] += (dmaximum.flatten(1) / count)[image, channel]


def gate(x: Tensor, gates: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """x, to be used in its place from here on, and ``gates * x + context``.

    Args:
        x: (N, C, H, W).
        gates: (N, C, 1, 1).
        context: (N, C, 1, 1), or None for nothing.
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
        # In place, as in `Squeeze`: dp is what the convolution has just made.
        return torch.addcmul(dx, dp, gates, out=dp), dgates, dcontext


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """``(a * b).sum((2, 3), keepdim=True)``, on a CPU some images at a time, so that the product
    never leaves the cache.
    """
    images = max(1, CACHED_VALUES // a.shape[1:].numel()) if a.device.type == "cpu" else len(a)
    parts = zip(a.split(images), b.split(images), strict=True)
    return torch.cat([(one * other).sum((2, 3), keepdim=True) for one, other in parts])


def fuse(
    x: Tensor,
    gates: Tensor,
    conv: nn.Conv2d,
    weight: Tensor,
    before: Tensor | None,
    after: Tensor | None,
    norm: nn.Module,
) -> Tensor:
    """``x + norm(conv(gates * x + before) + after)``.

    A norm that is a fixed affine function goes into the weights of the convolution, anew in every
    call. A depthwise convolution commutes with the gates, so that nothing but its result has to be
    stored.

    Args:
        x: (N, C, H, W).
        gates: (N, C, 1, 1).
        conv: The convolution, without a bias.
        weight: Its weights, or those of them that meet x.
        before: (N, C, 1, 1), or None for nothing.
        after: (N, C, 1, 1), or None for nothing.
        norm: BatchNorm or nothing.
    """
    weight = with_own_strides(weight)
    if (affine := fixed_affine(norm)) is None:
        x, p = gate(x, gates, before)
        z = conv._conv_forward(p, weight, None)
        return norm(z if after is None else z.add_(after)).add_(x)
    scale, shift = affine
    if before is None and conv.groups == x.shape[1] and not torch.is_grad_enabled():
        z = conv._conv_forward(x, weight, None)
        return torch.addcmul(x, z, gates * scale, out=z).add_(
            shift if after is None else torch.addcmul(shift, after, scale)
        )
    x, p = gate(x, gates, before)
    z = conv._conv_forward(p, weight * scale.unsqueeze(-1), shift.flatten())
    return (z if after is None else z.add_(after * scale)).add_(x)


def fixed_affine(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Returns scale and shift, each (C, 1, 1), of a BatchNorm that uses the statistics it has
    learned; None for any other norm.
    """
    if (
        not isinstance(norm, nn.BatchNorm2d)
        or norm.training
        or norm.running_mean is None
        or norm.running_var is None
    ):
        return None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale.view(-1, 1, 1), (norm.bias - norm.running_mean * scale).view(-1, 1, 1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution. Where a backward pass follows, torch is quicker with the product of two
    matrices.
    """
    if not torch.is_grad_enabled():
        return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def project(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """``norm(conv(x))`` of a 1x1 convolution."""
    weight = with_own_strides(conv.weight)
    if (affine := fixed_affine(norm)) is None or conv.bias is None:
        return norm(pointwise(x, weight, conv.bias))
    scale, shift = affine
    return pointwise(
        x,
        weight * scale.unsqueeze(-1),
        torch.addcmul(shift, conv.bias.view(-1, 1, 1), scale).flatten(),
    )
