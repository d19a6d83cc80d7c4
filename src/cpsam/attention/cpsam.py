"""CPSAM, the channel and position squeeze attention module: ``y = x + norm(F(p, c))``."""

from torch import Tensor, nn

from cpsam.attention import _fast_path
from cpsam.attention._common import check_choice, residual_norm
from cpsam.attention.channel_squeeze import ChannelSqueezeAttention
from cpsam.attention.fusion import FUSIONS
from cpsam.attention.position_squeeze import PositionSqueezeAttention


class CPSAM(nn.Module):
    """Gives every position the context of the whole image, and gates its channels, in parallel.

    ``y = x + norm(F(p, c))``, with the gated features ``p = PositionSqueezeAttention(x)``, the
    context ``c = ChannelSqueezeAttention(x)`` and a fusing convolution F.

    The norm's weight starts at zero, so a new block is the identity. The gate starts at one and the
    context at zero, so a block first learns :class:`~cpsam.attention.BareFusion`, its own control.

    Args:
        in_channels: Number of channels C of input and output.
        reduction: Ratio of both bottlenecks; their width is ``max(8, C // reduction)``.
        interaction: How the channels are related: ``"mlp"`` or ``"affinity"``.
        fusion: F. ``"sum"``: 1x1 of p + c; ``"concat"``: 1x1 of [p, c]; ``"depthwise"``: 3x3
            depthwise of p + c; ``"grouped"``: the depthwise form of the concatenation. With
            ``"concat"`` a block has more parameters than Non-Local.
        norm: ``"batch"``, or ``"none"``. Without a norm the weights of F on p start at zero.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If a number is below 1, or `interaction`, `fusion` or `norm` is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(CPSAM(64)(x), x)
        True

    Source:
        Gong et al., CPSAM, ICONIP 2021, doi:10.1007/978-3-030-92185-9_16; only the abstract is
        public. Its words: "infers attention maps along channel and spatial dimensions in parallel"
        are the two branches of the same x, "combine together through the conv layer" is F. Ours:
        how the channels interact, which convolution F is, the residual form with a zero-weight
        norm, and the identity start. A rule that was written before it was measured chose the
        defaults, on parts of the train splits of two probes (docs/results.md).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 16,
        interaction: str = "mlp",
        fusion: str = "grouped",
        norm: str = "batch",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, FUSIONS)
        self.in_channels, self.reduction = in_channels, reduction
        self.interaction, self.fusion, self.norm = interaction, fusion, norm
        factory = {"device": device, "dtype": dtype}
        self.channel_squeeze = ChannelSqueezeAttention(in_channels, reduction=reduction, **factory)
        self.position_squeeze = PositionSqueezeAttention(
            in_channels, reduction=reduction, interaction=interaction, **factory
        )
        self.fuse = FUSIONS[fusion](in_channels, norm=norm, **factory)
        self.post_norm = residual_norm(norm, in_channels, **factory)
        self.built = _fast_path.describe(self)

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, reduction={self.reduction}"
        return f"{sizes}, interaction={self.interaction}, fusion={self.fusion}, norm={self.norm}"

    @_fast_path.try_first(_fast_path.cpsam)
    def forward(self, x: Tensor) -> Tensor:
        c = self.channel_squeeze(x)  # (N, C, 1, 1)
        p = self.position_squeeze(x)  # (N, C, H, W)
        return x + self.post_norm(self.fuse(p, c))
