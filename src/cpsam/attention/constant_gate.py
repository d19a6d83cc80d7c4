"""Control: a CPSAM whose gate and context are learned and do not depend on the image."""

import torch
from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, check_choice, residual_norm
from cpsam.attention.fusion import FUSIONS


class ConstantGate(nn.Module):
    """Applies a learned gate and a learned context, the same for all images.

    ``y = x + norm(F(g * x, c))`` with ``g = 2 sigmoid(gate)``; there is one gate and one context
    per channel. The gate starts at one, the context at zero, and the norm's weight at zero. So a
    new block is the identity.

    Args:
        in_channels: Number of channels C of input and output.
        fusion: The fusing convolution F, as in :class:`~cpsam.attention.CPSAM`.
        norm: ``"batch"``, or ``"none"``. Without a norm the weights of F on the features start at
            zero.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1, or `fusion` or `norm` is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(ConstantGate(64)(x), x)
        True

    Source:
        A control of ours. In a comparison, CPSAM minus this control is the gain from a gate and a
        context that depend on the image.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        fusion: str = "grouped",
        norm: str = "batch",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels)
        check_choice("fusion", fusion, FUSIONS)
        self.in_channels, self.fusion, self.norm = in_channels, fusion, norm
        self.gate = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.context = nn.Parameter(torch.empty(in_channels, device=device, dtype=dtype))
        self.fuse = FUSIONS[fusion](in_channels, norm=norm, device=device, dtype=dtype)
        self.post_norm = residual_norm(norm, in_channels, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.gate)
        nn.init.zeros_(self.context)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, fusion={self.fusion}, norm={self.norm}"

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * self.gate.sigmoid().view(1, -1, 1, 1)  # (1, C, 1, 1)
        context = self.context.view(1, -1, 1, 1)  # (1, C, 1, 1)
        return x + self.post_norm(self.fuse(gate * x, context))
