"""The channel-squeeze branch of CPSAM: one map for all queries pools one context vector."""

from torch import Tensor, nn

from cpsam.attention._common import hidden_channels, starts_at_zero
from cpsam.functional import context_pool


class ChannelSqueezeAttention(nn.Module):
    """Squeezes the channels to one attention map, and pools the positions with it.

    ``c = expand(relu(layer_norm(squeeze(context_pool(x, key(x))))))``. `expand` starts at zero, so
    a new branch adds nothing.

    Args:
        in_channels: Number of channels C.
        reduction: Bottleneck ratio; the hidden width is ``max(8, C // reduction)``.

    Shape:
        - Input: (N, C, H, W).
        - Output: (N, C, 1, 1).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1.

    Example:
        >>> ChannelSqueezeAttention(64)(torch.randn(2, 64, 5, 7)).shape
        torch.Size([2, 64, 1, 1])

    Source:
        The abstract's "selectively joins the feature of different position by a query-independent
        feature map". The bottleneck is our choice, after Cao et al., GCNet, 2019, arXiv:1904.11492.
        Our deviation from it: `key` has no bias, because a softmax over positions would cancel it.
    """

    def __init__(self, in_channels: int, *, reduction: int = 16, device=None, dtype=None) -> None:
        super().__init__()
        self.in_channels, self.reduction = in_channels, reduction
        hidden = hidden_channels(in_channels, reduction)
        self.key = nn.Conv2d(in_channels, 1, 1, bias=False, device=device, dtype=dtype)
        self.squeeze = nn.Linear(in_channels, hidden, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(hidden, device=device, dtype=dtype)
        self.expand = starts_at_zero(nn.Linear(hidden, in_channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(context_pool(x, self.key(x)))

    def transform(self, context: Tensor) -> Tensor:
        hidden = self.norm(self.squeeze(context.flatten(1))).relu()  # (N, C/r)
        return self.expand(hidden).unsqueeze(-1).unsqueeze(-1)  # (N, C, 1, 1)
