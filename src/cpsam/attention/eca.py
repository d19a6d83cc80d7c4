"""Efficient channel attention (ECA): a gate a channel from the means of its neighbours."""

import math

from torch import Tensor, nn

from cpsam.attention.arguments import check_at_least_one


class ECA(nn.Module):
    """Re-weight the channels by a short convolution along them: ``y = x * sigmoid(conv(mean_l
    x_l))``.

    A multiplicative gate: a new block is not the identity.

    Args:
        in_channels: Channels C of input and output.
        kernel_size: Neighbouring channels that a gate sees, odd. None: the odd number that follows
            ``(log2(C) + 1) / 2`` rounded down, at least 1.

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
            raise ValueError(
                f"kernel_size must be odd, so that each channel has one gate; got {kernel_size}"
            )
        self.in_channels, self.kernel_size = in_channels, kernel_size
        self.conv = nn.Conv1d(
            1, 1, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3)).unsqueeze(1)  # (N, 1, C)
        gate = self.conv(mean).sigmoid().transpose(1, 2).unsqueeze(-1)  # (N, C, 1, 1)
        return x * gate
