"""Control: a plain residual bottleneck that has as many parameters as the block it is compared
with.
"""

from torch import Tensor, nn

from cpsam.attention.arguments import check_at_least_one
from cpsam.attention.identity_start import residual_norm


class ConvControl(nn.Module):
    """``y = x + norm(expand(relu(squeeze(x))))``, 1x1 convolutions C -> h -> C without biases, 2 C
    h + 2 C parameters, and no context at all.

    The norm's weight starts at zero, so a new block is the identity.

    Args:
        in_channels: Channels C of input and output.
        hidden_channels: The inner width h. A comparison picks it so that the parameters are those
            of CPSAM.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `hidden_channels` is below 1.

    Example:
        >>> sum(p.numel() for p in ConvControl(64, hidden_channels=23).parameters())
        3072

    Source:
        A control of ours: the parameters without the idea.
    """

    def __init__(self, in_channels: int, *, hidden_channels: int, device=None, dtype=None) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, hidden_channels=hidden_channels)
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        self.squeeze = nn.Conv2d(
            in_channels, hidden_channels, 1, bias=False, device=device, dtype=dtype
        )
        self.expand = nn.Conv2d(
            hidden_channels, in_channels, 1, bias=False, device=device, dtype=dtype
        )
        self.post_norm = residual_norm("batch", in_channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.post_norm(self.expand(self.squeeze(x).relu()))
