"""The maths alone: each function against its formula written out, and the laws of attention, in
float64.
"""

import math

import pytest
import torch

from cpsam.functional import (
    channel_affinity,
    channel_attention,
    concatenation_attention,
    context_pool,
    dot_product_attention,
    position_squeeze,
    softmax,
    softmax_attention,
)

N, C, H, W = 2, 6, 3, 5


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def softmax_pairs(query, key, value):
    return softmax_attention(query, key, value, 0.7)


def concatenation_pairs(query, key, value):
    return concatenation_attention(query[:, :1], key[:, :1], value)


PAIRS = [softmax_pairs, dot_product_attention, concatenation_pairs]


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
def test_softmax_is_at_least_float32_with_and_without_autocast(dtype):
    logits = normal(N, 4, 7).to(dtype)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            attn = softmax(logits)
        assert attn.dtype == expected
        torch.testing.assert_close(
            attn.sum(-1), torch.ones(N, 4, dtype=expected), rtol=1e-6, atol=1e-6
        )
        assert (attn > 0).all()


def test_softmax_is_that_of_its_formula_over_the_last_axis():
    logits = normal(N, 3, 4)
    for n, row in ((0, 1), (1, 2)):
        powers = [math.exp(value) for value in logits[n, row].tolist()]
        assert softmax(logits)[n, row].tolist() == pytest.approx(
            [power / sum(powers) for power in powers], rel=1e-12
        )


def test_context_pool_by_its_formula():
    x, logits = normal(N, C, H, W), normal(N, 1, H, W)
    pooled = context_pool(x, logits)
    assert pooled.shape == (N, C, 1, 1)
    for n in range(N):
        weights = {(i, j): math.exp(logits[n, 0, i, j]) for i in range(H) for j in range(W)}
        for c in range(C):
            expected = sum(
                weight * x[n, c, i, j].item() for (i, j), weight in weights.items()
            ) / sum(weights.values())
            assert pooled[n, c].item() == pytest.approx(expected, rel=1e-12)


def test_context_pool_is_a_convex_combination_of_positions():
    x, logits = normal(N, C, H, W), 3 * normal(N, 1, H, W)
    pooled = context_pool(x, logits)
    assert (pooled >= x.amin((2, 3), keepdim=True)).all() and (
        pooled <= x.amax((2, 3), keepdim=True)
    ).all()
    close(context_pool(torch.ones_like(x), logits), torch.ones(N, C, 1, 1, dtype=torch.float64))
    close(context_pool(x, torch.full_like(logits, 7.0)), x.mean((2, 3), keepdim=True))
    close(context_pool(x, logits + 5), pooled)
    logits[:, :, 1, 3] = 1e3
    close(context_pool(x, logits), x[:, :, 1:2, 3:4])


def test_position_squeeze_is_mean_and_maximum():
    x = normal(N, C, H, W) - 3
    mean, maximum = position_squeeze(x)
    assert mean.shape == maximum.shape == (N, C, 1, 1)
    assert mean[1, 2].item() == pytest.approx(sum(x[1, 2].flatten().tolist()) / (H * W), rel=1e-12)
    assert maximum[1, 2].item() == max(x[1, 2].flatten().tolist())


def test_channel_affinity_by_its_formula():
    mean, maximum, tau = (
        normal(N, C, 1, 1),
        normal(N, C, 1, 1),
        torch.tensor([1.7], dtype=torch.float64),
    )
    related = channel_affinity(mean, maximum, tau)
    assert related.shape == (N, C, 1, 1)

    def standardised(values):
        center = sum(values) / C
        deviation = math.sqrt(sum((value - center) ** 2 for value in values) / C + 1e-5)
        return [(value - center) / deviation for value in values]

    for n in range(N):
        a, b = (standardised(t[n].flatten().tolist()) for t in (mean, maximum))
        for i in range(C):
            weights = [math.exp(1.7 * a[i] * b[j]) for j in range(C)]
            expected = sum(weight * value for weight, value in zip(weights, a, strict=True)) / sum(
                weights
            )
            assert related[n, i].item() == pytest.approx(expected, rel=1e-10)


def test_channel_affinity_knows_neither_the_offset_nor_the_order_of_channels():
    mean, maximum, tau = (
        normal(N, C, 1, 1),
        normal(N, C, 1, 1),
        torch.tensor([1.7], dtype=torch.float64),
    )
    related, order = channel_affinity(mean, maximum, tau), torch.randperm(C)
    close(channel_affinity(mean + 5, maximum - 2, tau), related)
    # but for the norm's epsilon
    torch.testing.assert_close(
        channel_affinity(4 * mean, 3 * maximum, tau), related, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        channel_affinity(4 * mean, -3 * maximum, -tau), related, rtol=1e-3, atol=1e-3
    )
    close(channel_affinity(mean[:, order], maximum[:, order], tau), related[:, order])
    # mean and maximum have different parts
    assert (channel_affinity(maximum, mean, tau) - related).abs().max() > 0.1


def test_channel_affinity_averages_the_means():
    """Rows of the affinity sum to one: a flat one gives the mean over the channels, which is zero;
    a sharp one picks a channel.
    """
    mean, maximum = normal(N, C, 1, 1), normal(N, C, 1, 1)
    close(
        channel_affinity(mean, maximum, torch.zeros(1, dtype=torch.float64)),
        torch.zeros(N, C, 1, 1, dtype=torch.float64),
    )
    normalised = torch.nn.functional.layer_norm(mean.flatten(1), (C,))
    picked = channel_affinity(mean, maximum, torch.tensor([1e5], dtype=torch.float64)).flatten(1)
    for n in range(N):
        top, bottom = maximum[n].argmax(), maximum[n].argmin()
        for i in range(C):
            close(picked[n, i], normalised[n, top if normalised[n, i] > 0 else bottom])


def test_channel_attention_by_its_formula():
    x = normal(N, C, H, W) / 2
    out = channel_attention(x)
    for n in range(N):
        rows = x[n].flatten(1).tolist()
        for i in range(C):
            weights = [
                math.exp(sum(a * b for a, b in zip(rows[i], other, strict=True))) for other in rows
            ]
            expected = [
                sum(w * row[p] for w, row in zip(weights, rows, strict=True)) / sum(weights)
                for p in range(H * W)
            ]
            assert out[n, i].flatten().tolist() == pytest.approx(expected, rel=1e-10)


def expected_pairs(kind, query, key, value):
    """All pairs of positions in loops; (N, V, H, W)."""
    out = torch.zeros(value.shape[0], value.shape[1], *query.shape[2:], dtype=torch.float64)
    queries, keys, values = (t.flatten(2).transpose(1, 2).tolist() for t in (query, key, value))
    for n in range(len(queries)):
        for position, q in enumerate(queries[n]):
            if kind is concatenation_pairs:
                weights = [max(0.0, q[0] + k[0]) / len(keys[n]) for k in keys[n]]
            else:
                products = [sum(a * b for a, b in zip(q, k, strict=True)) for k in keys[n]]
                weights = [p / len(keys[n]) for p in products]
                if kind is softmax_pairs:
                    powers = [math.exp(0.7 * p) for p in products]
                    weights = [power / sum(powers) for power in powers]
            i, j = divmod(position, query.shape[3])
            for channel in range(value.shape[1]):
                out[n, channel, i, j] = sum(
                    w * v[channel] for w, v in zip(weights, values[n], strict=True)
                )
    return out


@pytest.mark.parametrize("pairs", PAIRS)
def test_pairwise_attention_by_its_formula_with_keys_elsewhere(pairs):
    """Keys and values may have another number of positions, and values another width."""
    query, key, value = normal(N, C, H, W), normal(N, C, 2, 4), normal(N, 3, 2, 4)
    close(pairs(query, key, value), expected_pairs(pairs, query, key, value))


@pytest.mark.parametrize("pairs", PAIRS)
def test_pairwise_attention_is_equivariant_in_queries_and_blind_to_the_order_of_keys(pairs):
    query, key, value = normal(N, C, H, W), normal(N, C, 2, 4), normal(N, 3, 2, 4)
    out = pairs(query, key, value)
    order = torch.randperm(8)
    close(pairs(query, *(t.flatten(2)[..., order].unflatten(2, (2, 4)) for t in (key, value))), out)
    order = torch.randperm(H * W)
    close(
        pairs(query.flatten(2)[..., order].unflatten(2, (H, W)), key, value),
        out.flatten(2)[..., order].unflatten(2, (H, W)),
    )


@pytest.mark.parametrize("pairs", PAIRS)
def test_pairwise_attention_does_not_change_when_every_key_is_there_twice(pairs):
    """So the weights are normalised by the number of keys, not of queries."""
    query, key, value = normal(N, C, H, W), normal(N, C, 2, 4), normal(N, 3, 2, 4)
    close(
        pairs(query, torch.cat([key, key], 3), torch.cat([value, value], 3)),
        pairs(query, key, value),
    )


@pytest.mark.parametrize("pairs", PAIRS)
def test_pairwise_attention_is_linear_in_the_values(pairs):
    query, key, value, other = (
        normal(N, C, H, W),
        normal(N, C, 2, 4),
        normal(N, 3, 2, 4),
        normal(N, 3, 2, 4),
    )
    close(
        pairs(query, key, 2 * value - 5 * other),
        2 * pairs(query, key, value) - 5 * pairs(query, key, other),
    )


def test_softmax_attention_is_a_convex_combination_that_its_scale_sharpens():
    query, key, value = normal(N, C, H, W), normal(N, C, 2, 4), normal(N, 3, 2, 4)
    low, high = value.amin((2, 3), keepdim=True), value.amax((2, 3), keepdim=True)
    for scale in (0.3, 2.0):
        out = softmax_attention(query, key, value, scale)
        assert (out > low).all() and (out < high).all()
        close(
            softmax_attention(query, key, torch.ones_like(value), scale),
            torch.ones(N, 3, H, W, dtype=torch.float64),
        )
        close(out, softmax_attention(scale * query, key, value, 1.0))
    close(
        softmax_attention(query, key, value, 0.0),
        value.mean((2, 3), keepdim=True).expand(N, 3, H, W),
    )


def test_concatenation_ignores_pairs_below_zero():
    query, key, value = normal(N, 1, H, W), normal(N, 1, 2, 4), normal(N, 3, 2, 4)
    assert not concatenation_attention(query - 100, key, value).any()
    mean = value.mean((2, 3), keepdim=True)
    close(concatenation_attention(query + 100, key - key, value), (query + 100) * mean)


@pytest.mark.parametrize("function", [channel_attention, position_squeeze])
def test_functions_script_and_trace(function):
    x = normal(N, C, H, W)
    for other in (torch.jit.script(function), torch.fx.symbolic_trace(function)):
        torch.testing.assert_close(other(x), function(x), rtol=0, atol=0)
