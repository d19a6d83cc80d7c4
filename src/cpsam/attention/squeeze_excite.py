"""Squeeze-and-excitation (SE): the means over the positions gate the channels."""

from torch import Tensor, nn

from cpsam.attention._common import hidden_channels


class SqueezeExcite(nn.Module):
    """Gates the channels by their means.

    ``y = x * sigmoid(expand(relu(squeeze(mean_l x_l))))``. The gate is multiplicative, so a new
    block is not the identity. It about halves its input.

    Args:
        in_channels: Number of channels C of input and output.
        reduction: Bottleneck ratio; the hidden width is ``max(8, C // reduction)``.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1.

    Example:
        >>> sum(p.numel() for p in SqueezeExcite(256).parameters())
        8464

    Source:
        Hu et al., Squeeze-and-excitation networks, 2018, arXiv:1709.01507, equations 2 to 4, with
        biases. Our deviation: the hidden width is never below 8.
    """

    def __init__(self, in_channels: int, *, reduction: int = 16, device=None, dtype=None) -> None:
        super().__init__()
        self.in_channels, self.reduction = in_channels, reduction
        hidden = hidden_channels(in_channels, reduction)
        self.squeeze = nn.Conv2d(in_channels, hidden, 1, device=device, dtype=dtype)
        self.expand = nn.Conv2d(hidden, in_channels, 1, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, reduction={self.reduction}"

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * self.expand(self.squeeze(mean).relu()).sigmoid()
