"""Every block in loops over Python's floats, from its formula; shares no code with the library, nor
with torch.

``define(block, x)`` computes what `block` should, in eval mode: its parameters are read by name,
its arguments from its attributes.
"""

import math

import torch


class Weights:
    """The state of a block as nested lists, by name; ``weights.under("branch")`` are those of a
    child.
    """

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    def __call__(self, name):
        return self.state.get(self.prefix + name)

    def under(self, child):
        return Weights(self.state, f"{self.prefix}{child}.")


def relu(value):
    return max(value, 0.0)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def conv(w, x, padding=0, dilation=1):
    """A convolution of (C, H, W) with the kernels ``weight`` (O, C / groups, K, K) and ``bias``
    (O), if there is one.
    """
    weight, bias = w("weight"), w("bias")
    outputs, per_group, size = len(weight), len(weight[0]), len(weight[0][0])
    height, width = len(x[0]), len(x[0][0])
    groups = len(x) // per_group
    y = [
        [[bias[o] if bias else 0.0 for _ in range(width)] for _ in range(height)]
        for o in range(outputs)
    ]
    for o in range(outputs):
        first = (o // (outputs // groups)) * per_group
        for c in range(per_group):
            for a in range(size):
                for b in range(size):
                    factor = weight[o][c][a][b]
                    for i in range(height):
                        for j in range(width):
                            row, column = i + a * dilation - padding, j + b * dilation - padding
                            if 0 <= row < height and 0 <= column < width:
                                y[o][i][j] += factor * x[first + c][row][column]
    return y


def flat(nested):
    """The numbers of nested lists: a vector may be stored with axes of size one."""
    return (
        [number for part in nested for number in flat(part)]
        if isinstance(nested, list)
        else [nested]
    )


def dense(w, vector):
    """A product with a matrix, which may be stored as a 1x1 convolution."""
    bias = w("bias") or [0.0] * len(w("weight"))
    return [
        sum(k * value for k, value in zip(flat(row), vector, strict=True)) + b
        for row, b in zip(w("weight"), bias, strict=True)
    ]


def batch_norm(w, x):
    if w("weight") is None:
        return x  # norm="none"
    mean, variance, weight, bias = w("running_mean"), w("running_var"), w("weight"), w("bias")
    return [
        [
            [
                (value - mean[c]) / math.sqrt(variance[c] + 1e-5) * weight[c] + bias[c]
                for value in row
            ]
            for row in x[c]
        ]
        for c in range(len(x))
    ]


def layer_norm(vector, weight=None, bias=None):
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    normal = [(value - mean) / math.sqrt(variance + 1e-5) for value in vector]
    return (
        normal
        if weight is None
        else [v * s + b for v, s, b in zip(normal, flat(weight), flat(bias), strict=True)]
    )


def pixels(channel):
    return [value for row in channel for value in row]


def mean_and_max(x):
    return [sum(pixels(c)) / len(pixels(c)) for c in x], [max(pixels(c)) for c in x]


def pixelwise(function, *images):
    """``function`` of the values at each channel and position of images of one shape."""
    return [
        [
            [function(*values) for values in zip(*rows, strict=True)]
            for rows in zip(*channels, strict=True)
        ]
        for channels in zip(*images, strict=True)
    ]


def broadcast(vector, x):
    return [[[value for _ in row] for row in x[0]] for value in vector]


def add(x, y):
    return pixelwise(lambda a, b: a + b, x, y)


def scale_channels(vector, x):
    return pixelwise(lambda a, b: a * b, broadcast(vector, x), x)


def pooled_context(w, x):
    attention = softmax(pixels(conv(w.under("key"), x)[0]))
    return [sum(a * value for a, value in zip(attention, pixels(c), strict=True)) for c in x]


def bottleneck(w, vector):
    return dense(w.under("expand"), [relu(value) for value in dense(w.under("squeeze"), vector)])


def normed_bottleneck(w, vector):
    hidden = layer_norm(dense(w.under("squeeze"), vector), w("norm.weight"), w("norm.bias"))
    return dense(w.under("expand"), [relu(value) for value in hidden])


def gate(block, w, x):
    mean, maximum = mean_and_max(x)
    if block.interaction == "mlp":
        logits = [
            a + b
            for a, b in zip(
                bottleneck(w.under("relate"), mean),
                bottleneck(w.under("relate"), maximum),
                strict=True,
            )
        ]
    else:
        a, b = layer_norm(mean), layer_norm(maximum)
        rows = [
            softmax([w("relate.tau")[0] * a[i] * b[j] for j in range(len(b))])
            for i in range(len(a))
        ]
        related = [sum(row[j] * a[j] for j in range(len(a))) for row in rows]
        logits = [
            s * r + v for s, r, v in zip(w("relate.weight"), related, w("relate.bias"), strict=True)
        ]
    return [2 * sigmoid(value) for value in logits]


def fuse(fusion, w, p, c):
    if fusion == "sum":
        return conv(w.under("conv"), add(p, broadcast(c, p)))
    if fusion == "concat":
        return conv(w.under("conv"), [*p, *broadcast(c, p)])
    if fusion == "depthwise":
        return conv(w.under("conv"), add(p, broadcast(c, p)), padding=1)
    through = [k * value for k, value in zip(w("context.weight"), c, strict=True)]
    return add(conv(w.under("conv"), p, padding=1), broadcast(through, p))


def cpsam(block, w, x):
    context = normed_bottleneck(
        w.under("channel_squeeze"), pooled_context(w.under("channel_squeeze"), x)
    )
    gated = scale_channels(gate(block, w.under("position_squeeze"), x), x)
    return add(
        x, batch_norm(w.under("post_norm"), fuse(block.fusion, w.under("fuse"), gated, context))
    )


def max_pool_2x2(x):
    """Windows that stick out over an odd edge count, too."""
    height, width = len(x[0]), len(x[0][0])
    return [
        [
            [
                max(
                    c[i][j]
                    for i in range(a, min(a + 2, height))
                    for j in range(b, min(b + 2, width))
                )
                for b in range(0, width, 2)
            ]
            for a in range(0, height, 2)
        ]
        for c in x
    ]


def columns(x):
    """For each position the vector over the channels."""
    return list(zip(*(pixels(c) for c in x), strict=True))


def dot(a, b):
    return sum(left * right for left, right in zip(a, b, strict=True))


def non_local(block, w, x):
    query, key = (
        x if block.mode == "gaussian" else conv(w.under(name), x) for name in ("query", "key")
    )
    value = conv(w.under("value"), x)
    if block.subsample:
        key, value = max_pool_2x2(key), max_pool_2x2(value)
    queries, keys, values = columns(query), columns(key), columns(value)
    attended = []
    for q in queries:
        if block.mode == "concatenation":
            weights = [
                k[0][0]
                for half in ("query_logits", "key_logits")
                for k in w(f"attend.{half}.weight")[0]
            ]
            pairs = [relu(dot(weights, [*q, *k])) / len(keys) for k in keys]
        elif block.mode == "dot_product":
            pairs = [dot(q, k) / len(keys) for k in keys]
        else:
            pairs = softmax([dot(q, k) / (math.sqrt(len(q)) if block.scaled else 1) for k in keys])
        attended.append([dot(pairs, channel) for channel in zip(*values, strict=True)])
    width = len(x[0][0])
    maps = [
        [list(channel[start : start + width]) for start in range(0, len(queries), width)]
        for channel in zip(*attended, strict=True)
    ]
    return add(x, batch_norm(w.under("post_norm"), conv(w.under("proj"), maps)))


def simplified_non_local(block, w, x):
    return add(x, broadcast(dense(w.under("value"), pooled_context(w, x)), x))


def global_context(block, w, x):
    return add(x, broadcast(normed_bottleneck(w, pooled_context(w, x)), x))


def squeeze_excite(block, w, x):
    return scale_channels([sigmoid(value) for value in bottleneck(w, mean_and_max(x)[0])], x)


def cbam(block, w, x):
    mean, maximum = mean_and_max(x)
    z = scale_channels(
        [sigmoid(a + b) for a, b in zip(bottleneck(w, mean), bottleneck(w, maximum), strict=True)],
        x,
    )
    maps = [
        [[function(values) for values in zip(*rows, strict=True)] for rows in zip(*z, strict=True)]
        for function in (average, max)
    ]
    spatial = batch_norm(
        w.under("norm"), conv(w.under("spatial"), maps, padding=block.kernel_size // 2)
    )
    return pixelwise(lambda value, s: value * sigmoid(s), z, spatial * len(z))


def average(values):
    return sum(values) / len(values)


def eca(block, w, x):
    mean, kernel = mean_and_max(x)[0], w("conv.weight")[0][0]
    reach = len(kernel) // 2
    gates = [
        sigmoid(
            sum(
                kernel[k] * mean[c + k - reach]
                for k in range(len(kernel))
                if 0 <= c + k - reach < len(mean)
            )
        )
        for c in range(len(mean))
    ]
    return scale_channels(gates, x)


def bam(block, w, x):
    def hidden(branch, index, image, **arguments):
        y = batch_norm(
            w.under(f"{branch}.{index + 1}"), conv(w.under(f"{branch}.{index}"), image, **arguments)
        )
        return pixelwise(relu, y)

    channel = dense(
        w.under("channel.3"),
        [row[0][0] for row in hidden("channel", 0, [[[value]] for value in mean_and_max(x)[0]])],
    )
    image = hidden("spatial", 0, x)
    for index in (3, 6):
        image = hidden("spatial", index, image, padding=block.dilation, dilation=block.dilation)
    spatial = conv(w.under("spatial.9"), image)
    return pixelwise(
        lambda value, c, s: value * (1 + sigmoid(c + s)), x, broadcast(channel, x), spatial * len(x)
    )


def danet_channel(block, w, x):
    rows = [pixels(c) for c in x]
    attention = [softmax([dot(a, b) for b in rows]) for a in rows]
    width = len(x[0][0])
    attended = [[dot(row, position) for position in zip(*rows, strict=True)] for row in attention]
    maps = [
        [channel[start : start + width] for start in range(0, len(channel), width)]
        for channel in attended
    ]
    return pixelwise(lambda value, a: value + w("beta")[0] * a, x, maps)


def norm_only(block, w, x):
    return add(x, batch_norm(w.under("post_norm"), x))


def bare_fusion(block, w, x):
    padding = 0 if block.fusion in ("sum", "concat") else 1
    return add(x, batch_norm(w.under("post_norm"), conv(w.under("conv"), x, padding=padding)))


def constant_gate(block, w, x):
    gated = scale_channels([2 * sigmoid(value) for value in w("gate")], x)
    return add(
        x,
        batch_norm(w.under("post_norm"), fuse(block.fusion, w.under("fuse"), gated, w("context"))),
    )


def conv_control(block, w, x):
    return add(
        x,
        batch_norm(
            w.under("post_norm"),
            conv(w.under("expand"), pixelwise(relu, conv(w.under("squeeze"), x))),
        ),
    )


def define(block, x):
    formula = FORMULAS[type(block).__name__]
    weights = Weights({name: tensor.tolist() for name, tensor in block.state_dict().items()})
    return torch.tensor(
        [formula(block, weights, image) for image in x.tolist()], dtype=torch.float64
    )


FORMULAS = {
    "CPSAM": cpsam,
    "NonLocal": non_local,
    "SimplifiedNonLocal": simplified_non_local,
    "GlobalContext": global_context,
    "SqueezeExcite": squeeze_excite,
    "CBAM": cbam,
    "ECA": eca,
    "BAM": bam,
    "DANetChannel": danet_channel,
    "NormOnly": norm_only,
    "BareFusion": bare_fusion,
    "ConstantGate": constant_gate,
    "ConvControl": conv_control,
}
