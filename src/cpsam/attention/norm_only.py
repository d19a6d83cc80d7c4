"""Control: the norm alone, so that nobody mistakes the effect of a norm for attention."""

from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, residual_norm


class NormOnly(nn.Module):
    """Adds the normalised features: ``y = x + norm(x)``.

    The norm's weight starts at zero, so a new block is the identity.

    Args:
        in_channels: Number of channels C of input and output.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(NormOnly(64)(x), x)
        True

    Source:
        A control of ours: CPSAM and Non-Local have this in common besides attention.
    """

    def __init__(self, in_channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels)
        self.in_channels = in_channels
        self.post_norm = residual_norm("batch", in_channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.post_norm(x)
