"""Global context (GC): one attention map for all queries, then a bottleneck."""

from torch import Tensor, nn

from cpsam.attention._common import hidden_channels, starts_at_zero
from cpsam.functional import context_pool


class GlobalContext(nn.Module):
    """Adds one attention-pooled context vector to every position.

    ``y = x + expand(relu(norm(squeeze(context_pool(x, key(x))))))``. `expand` starts at zero, so a
    new block is the identity.

    Args:
        in_channels: Number of channels C of input and output.
        reduction: Bottleneck ratio; the hidden width is ``max(8, C // reduction)``.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1.

    Example:
        >>> GlobalContext(64)(torch.zeros(2, 64, 5, 7)).shape
        torch.Size([2, 64, 5, 7])

    Source:
        Cao et al., GCNet, 2019, arXiv:1904.11492; key, squeeze, expand are its W_k, W_v1, W_v2. Our
        deviation: the hidden width is never below 8.
    """

    def __init__(self, in_channels: int, *, reduction: int = 16, device=None, dtype=None) -> None:
        super().__init__()
        self.in_channels, self.reduction = in_channels, reduction
        hidden = hidden_channels(in_channels, reduction)
        factory = {"device": device, "dtype": dtype}
        self.key = nn.Conv2d(in_channels, 1, 1, **factory)
        self.squeeze = nn.Conv2d(in_channels, hidden, 1, **factory)
        self.norm = nn.LayerNorm([hidden, 1, 1], **factory)
        self.expand = starts_at_zero(nn.Conv2d(hidden, in_channels, 1, **factory))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, reduction={self.reduction}"

    def forward(self, x: Tensor) -> Tensor:
        context = context_pool(x, self.key(x))  # (N, C, 1, 1)
        return x + self.expand(self.norm(self.squeeze(context)).relu())
