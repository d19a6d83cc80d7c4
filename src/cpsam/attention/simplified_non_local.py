"""Simplified Non-Local: one attention map for all queries, then a dense projection."""

from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, starts_at_zero
from cpsam.functional import context_pool


class SimplifiedNonLocal(nn.Module):
    """Adds one attention-pooled, projected context vector to every position.

    ``y = x + value(context_pool(x, key(x)))``. `value` starts at zero, so a new block is the
    identity.

    Args:
        in_channels: Number of channels C of input and output.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1.

    Example:
        >>> sum(p.numel() for p in SimplifiedNonLocal(64).parameters())
        4225

    Source:
        Cao et al., GCNet, 2019, arXiv:1904.11492, equation 3; key and value are its W_k and W_v,
        with W_v moved out of the sum as it does. No deviation.
    """

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels)
        self.in_channels = in_channels
        factory = {"device": device, "dtype": dtype}
        self.key = nn.Conv2d(in_channels, 1, 1, **factory)
        self.value = starts_at_zero(nn.Conv2d(in_channels, in_channels, 1, **factory))

    def forward(self, x: Tensor) -> Tensor:
        context = context_pool(x, self.key(x))  # (N, C, 1, 1)
        return x + self.value(context)
