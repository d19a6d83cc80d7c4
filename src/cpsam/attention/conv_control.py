"""Control: a residual bottleneck with as many parameters as the block that it is compared with."""

from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, residual_norm


class ConvControl(nn.Module):
    """Adds a bottleneck of 1x1 convolutions, which has no context: one position sees only itself.

    ``y = x + norm(expand(relu(squeeze(x))))`` has the widths C -> h -> C, no biases, and
    2 C h + 2 C parameters. The norm's weight starts at zero, so a new block is the identity.

    Args:
        in_channels: Number of channels C of input and output.
        hidden_channels: The inner width h. A comparison chooses it so that the block has the
            parameters of CPSAM.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `hidden_channels` is below 1.

    Example:
        >>> sum(p.numel() for p in ConvControl(64, hidden_channels=23).parameters())
        3072

    Source:
        A control of ours: the parameters without the attention.
    """

    def __init__(self, in_channels: int, *, hidden_channels: int, device=None, dtype=None) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, hidden_channels=hidden_channels)
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        factory = {"device": device, "dtype": dtype}
        self.squeeze = nn.Conv2d(in_channels, hidden_channels, 1, bias=False, **factory)
        self.expand = nn.Conv2d(hidden_channels, in_channels, 1, bias=False, **factory)
        self.post_norm = residual_norm("batch", in_channels, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.post_norm(self.expand(self.squeeze(x).relu()))
