"""Parameters and multiply-accumulates of every block, from its formula.

C channels, h the hidden width, L positions, K positions of the keys. ``*_macs`` are those of one
image.
"""

import math


def hidden(channels, reduction):
    return max(8, channels // reduction)


def norm_parameters(channels, norm):
    return 2 * channels if norm == "batch" else 0


FUSION = {
    "sum": lambda c: c * c,
    "concat": lambda c: 2 * c * c,
    "depthwise": lambda c: 9 * c,
    "grouped": lambda c: 10 * c,
}
BARE_FUSION = {
    "sum": lambda c: c * c,
    "concat": lambda c: c * c,
    "depthwise": lambda c: 9 * c,
    "grouped": lambda c: 9 * c,
}


def fusion_macs(c, length, fusion):
    return {
        "sum": c * c * length,
        "concat": 2 * c * c * length,
        "depthwise": 9 * c * length,
        "grouped": 9 * c * length,
    }[fusion]


def cpsam(c, reduction, interaction, fusion, norm):
    h = hidden(c, reduction)
    channel_squeeze = c + (c * h + h) + 2 * h + (h * c + c)
    position_squeeze = (c * h + h) + (h * c + c) if interaction == "mlp" else 1 + 2 * c
    return channel_squeeze + position_squeeze + FUSION[fusion](c) + norm_parameters(c, norm)


def cpsam_macs(c, height, width, reduction, interaction, fusion, norm):
    h, length = hidden(c, reduction), height * width
    channel_squeeze = c * length + length + c * length + 2 * c * h
    position_squeeze = 2 * 2 * c * h if interaction == "mlp" else c * c + c * c
    return channel_squeeze + position_squeeze + fusion_macs(c, length, fusion)


def non_local(c, reduction, mode, norm, subsample, scaled):
    h = hidden(c, reduction)
    embeddings = {"embedded_gaussian": 3, "gaussian": 1, "dot_product": 3, "concatenation": 3}[
        mode
    ] * (c * h + h)
    return (
        embeddings
        + (2 * h if mode == "concatenation" else 0)
        + (h * c + c)
        + norm_parameters(c, norm)
    )


def non_local_macs(c, height, width, reduction, mode, norm, subsample, scaled):
    h, length = hidden(c, reduction), height * width
    keys = math.ceil(height / 2) * math.ceil(width / 2) if subsample else length
    pairs = {
        "embedded_gaussian": length * keys * (h + 1 + h),
        "gaussian": length * keys * (c + 1 + h),
        "dot_product": length * keys * (h + h),
        "concatenation": h * length + h * keys + length * keys * h,
    }[mode]
    return (2 if mode == "gaussian" else 4) * c * h * length + pairs


def simplified_non_local(c):
    return c**2 + 2 * c + 1


def simplified_non_local_macs(c, height, width):
    return (2 * c + 1) * height * width + c * c


def global_context(c, reduction):
    h = hidden(c, reduction)
    return (c + 1) + (c * h + h) + 2 * h + (h * c + c)


def global_context_macs(c, height, width, reduction):
    return (2 * c + 1) * height * width + 2 * c * hidden(c, reduction)


def squeeze_excite(c, reduction):
    h = hidden(c, reduction)
    return 2 * c * h + h + c


def squeeze_excite_macs(c, height, width, reduction):
    return 2 * c * hidden(c, reduction)


def cbam(c, reduction, kernel_size):
    return squeeze_excite(c, reduction) + 2 * kernel_size**2 + 2


def cbam_macs(c, height, width, reduction, kernel_size):
    return 2 * 2 * c * hidden(c, reduction) + 2 * kernel_size**2 * height * width


def eca(c, kernel_size):
    if kernel_size is None:
        kernel_size = next(k for k in (1, 3, 5, 7) if k >= int((math.log2(c) + 1) / 2))
    return kernel_size


def eca_macs(c, height, width, kernel_size):
    return c * eca(c, kernel_size)


def bam(c, reduction, dilation):
    h = hidden(c, reduction)
    channel = c * h + 2 * h + h * c + c
    return channel + (c * h + 2 * h) + 2 * (9 * h * h + 2 * h) + (h + 1)


def bam_macs(c, height, width, reduction, dilation):
    h = hidden(c, reduction)
    return 2 * c * h + (c * h + 2 * 9 * h * h + h) * height * width


def danet_channel(c):
    return 1


def danet_channel_macs(c, height, width):
    return 2 * c * c * height * width + c * c


def norm_only(c):
    return 2 * c


def norm_only_macs(c, height, width):
    return 0


def bare_fusion(c, fusion, norm):
    return BARE_FUSION[fusion](c) + norm_parameters(c, norm)


def bare_fusion_macs(c, height, width, fusion, norm):
    return BARE_FUSION[fusion](c) * height * width


def constant_gate(c, fusion, norm):
    return 2 * c + FUSION[fusion](c) + norm_parameters(c, norm)


def constant_gate_macs(c, height, width, fusion, norm):
    return fusion_macs(c, height * width, fusion)


def conv_control(c, hidden_channels):
    return 2 * c * hidden_channels + 2 * c


def conv_control_macs(c, height, width, hidden_channels):
    return 2 * c * hidden_channels * height * width
