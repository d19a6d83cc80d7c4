"""The channel attention of DANet: every channel attends to all channels."""

import torch
from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one
from cpsam.functional import channel_attention


class DANetChannel(nn.Module):
    """Adds to each channel the channels that are similar to it.

    ``y = x + beta * softmax(X X^T) X`` with X the (C, L) features of an image. `beta` starts at
    zero, so a new block is the identity.

    Args:
        in_channels: Number of channels C of input and output.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1.

    Example:
        >>> sum(p.numel() for p in DANetChannel(64).parameters())
        1

    Source:
        Fu et al., Dual attention network, 2019, arXiv:1809.02983, equations 3 and 4. No deviation
        from the paper. The authors' code subtracts the products from their maximum before the
        softmax, so that it attends to the least similar channels.
    """

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels)
        self.in_channels = in_channels
        self.beta = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.beta * channel_attention(x)
