"""Efficient channel attention (ECA): the means of neighbouring channels gate each channel."""

import math

from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one


class ECA(nn.Module):
    """Gates the channels by a short convolution along the channel axis.

    ``y = x * sigmoid(conv(mean_l x_l))``. The gate is multiplicative, so a new block is not the
    identity.

    Args:
        in_channels: Number of channels C of input and output.
        kernel_size: Number of neighbouring channels that a gate depends on, odd. The default
            depends on C: ``(log2(C) + 1) / 2`` rounded down, plus one if that is even.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1 or `kernel_size` is not odd.

    Example:
        >>> [ECA(channels).kernel_size for channels in (64, 256, 512)]
        [3, 5, 5]

    Source:
        Wang et al., ECA-Net, 2020, arXiv:1910.03151, equations 9 and 12 with gamma 2 and b 1. No
        deviation.
    """

    def __init__(
        self, in_channels: int, *, kernel_size: int | None = None, device=None, dtype=None
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels)
        if kernel_size is None:
            nearest = int((math.log2(in_channels) + 1) / 2)
            kernel_size = nearest + 1 - nearest % 2
        check_at_least_one(kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            why = "so that each channel has one gate"
            raise ValueError(f"kernel_size must be odd, {why}; got {kernel_size}")
        self.in_channels, self.kernel_size = in_channels, kernel_size
        same = {"padding": kernel_size // 2, "bias": False}
        self.conv = nn.Conv1d(1, 1, kernel_size, **same, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3)).unsqueeze(1)  # (N, 1, C)
        gate = self.conv(mean).sigmoid().transpose(1, 2).unsqueeze(-1)  # (N, C, 1, 1)
        return x * gate
