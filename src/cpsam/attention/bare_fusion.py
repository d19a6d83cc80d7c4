"""Control: CPSAM's fusing convolution without its attention."""

from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, check_choice, residual_norm
from cpsam.attention.fusion import FUSIONS, bare_conv


class BareFusion(nn.Module):
    """Adds the fusing convolution of the bare features: ``y = x + norm(F(x, 0))``.

    A CPSAM computes this as long as its gate is one and its context is zero, as when it is new.

    Args:
        in_channels: Number of channels C of input and output.
        fusion: As in :class:`~cpsam.attention.CPSAM`: ``"sum"`` and ``"concat"`` leave a dense 1x1
            convolution, the others a depthwise 3x3.
        norm: ``"batch"``, or ``"none"``. Without a norm the convolution starts at zero.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` is below 1, or `fusion` or `norm` is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(BareFusion(64)(x), x)
        True

    Source:
        A control of ours. In a comparison, CPSAM minus this control is the gain from attention.
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
        self.conv = bare_conv(fusion, in_channels, norm, device=device, dtype=dtype)
        self.post_norm = residual_norm(norm, in_channels, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, fusion={self.fusion}, norm={self.norm}"

    def forward(self, x: Tensor) -> Tensor:
        return x + self.post_norm(self.conv(x))
