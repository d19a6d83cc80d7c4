"""Control: CPSAM whose gate and context are learned but see no image."""

import torch
from torch import Tensor, nn

from cpsam.attention.arguments import check_at_least_one, check_choice
from cpsam.attention.fusion import FUSIONS
from cpsam.attention.identity_start import residual_norm


class ConstantGate(nn.Module):
    """``y = x + norm(F(g * x, c))`` with one learned gate ``g = 2 sigmoid(gate)`` and one learned
    context c a channel, the same for all images.

    Gate and context start at one and zero, and the norm's weight at zero, so a new block is the
    identity.

    Args:
        in_channels: Channels C of input and output.
        fusion: The fusing convolution F, as in :class:`~cpsam.attention.CPSAM`.
        norm: ``"batch"``, or ``"none"``; then the convolution starts at zero on the features in its
            place.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1, or `fusion` or `norm` is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(ConstantGate(64)(x), x)
        True

    Source:
        A control of ours: CPSAM minus this is what looking at the image earned.
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
        return x + self.post_norm(self.fuse(gate * x, self.context.view(1, -1, 1, 1)))
