"""CBAM: a channel gate, then a spatial gate."""

import torch
from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, hidden_channels
from cpsam.functional import position_squeeze


class CBAM(nn.Module):
    """Gates the channels by their mean and maximum, then the positions by theirs.

    - ``z = x * sigmoid(M(mean_l x_l) + M(max_l x_l))``, M a bottleneck of two layers;
    - ``y = z * sigmoid(norm(spatial([mean_c z_c, max_c z_c])))``.

    The gates are multiplicative, so a new block is not the identity.

    Args:
        in_channels: Number of channels C of input and output.
        reduction: Bottleneck ratio of M; the hidden width is ``max(8, C // reduction)``.
        kernel_size: Width of the spatial convolution, in positions; odd.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1, or `kernel_size` is not odd.

    Example:
        >>> sum(p.numel() for p in CBAM(256).parameters()) == 8464 + 98 + 2
        True

    Source:
        Woo et al., CBAM, 2018, arXiv:1807.06521, equations 2 and 3, with the biases and the norm of
        the authors' code. Our deviation: the hidden width is never below 8.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        check_at_least_one(kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            why = "so that the map keeps its size"
            raise ValueError(f"kernel_size must be odd, {why}; got {kernel_size}")
        self.in_channels, self.reduction, self.kernel_size = in_channels, reduction, kernel_size
        hidden = hidden_channels(in_channels, reduction)
        factory = {"device": device, "dtype": dtype}
        self.squeeze = nn.Conv2d(in_channels, hidden, 1, **factory)
        self.expand = nn.Conv2d(hidden, in_channels, 1, **factory)
        same = {"padding": kernel_size // 2, "bias": False}
        self.spatial = nn.Conv2d(2, 1, kernel_size, **same, **factory)
        self.norm = nn.BatchNorm2d(1, **factory)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, reduction={self.reduction}, kernel_size={self.kernel_size}"

    def forward(self, x: Tensor) -> Tensor:
        mean, maximum = position_squeeze(x)  # (N, C, 1, 1)
        z = x * (self.bottleneck(mean) + self.bottleneck(maximum)).sigmoid()
        maps = torch.cat([z.mean(1, keepdim=True), z.amax(1, keepdim=True)], 1)  # (N, 2, H, W)
        return z * self.norm(self.spatial(maps)).sigmoid()

    def bottleneck(self, squeezed: Tensor) -> Tensor:
        return self.expand(self.squeeze(squeezed).relu())  # (N, C, 1, 1)
