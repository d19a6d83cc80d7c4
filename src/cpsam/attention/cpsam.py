"""CPSAM, the channel and position squeeze attention module: ``y = x + norm(F(p, c))``."""

import torch
from torch import Tensor, nn

from cpsam import fused
from cpsam.attention.arguments import check_choice
from cpsam.attention.channel_squeeze import ChannelSqueezeAttention
from cpsam.attention.fusion import FUSIONS
from cpsam.attention.identity_start import residual_norm
from cpsam.attention.position_squeeze import PositionSqueezeAttention


class CPSAM(nn.Module):
    """Give every position the context of the whole image, and re-weight its channels, in parallel.

    ``y = x + norm(F(p, c))`` with the context ``c = ChannelSqueezeAttention(x)``, the gated features ``p = PositionSqueezeAttention(x)``
    and a fusing convolution F. The norm's weight starts at zero, so a new block is the identity. Gate and context start at one and zero, so
    it is also its own control, the bare fusing convolution (:class:`~cpsam.attention.BareFusion`): attention has to earn what it adds.

    `forward` is the definition. In eager float32 and float64 it hands over to :meth:`forward_fused`, which computes the same, gradients
    included, with fewer passes over memory (:mod:`cpsam.fused`): one product for mean and context, on a CPU in channels-last whatever the
    input is in, and in eval mode with the norm inside the weights of the convolution. Traced, scripted, compiled or exported, under
    autocast, in half precision, or with hooks on its layers, the block runs as written.

    Args:
        in_channels: Channels C of input and output.
        reduction: Ratio of both bottlenecks; their width is ``max(8, C // reduction)``.
        interaction: How the position-squeeze branch relates the channels: ``"mlp"`` or ``"affinity"``.
        fusion: F: ``"sum"``, 1x1 of p + c; ``"concat"``, 1x1 of [p, c]; ``"depthwise"``, 3x3 depthwise of p + c; ``"grouped"``, the
            depthwise form of the concatenation. With a dense concatenation a block has more parameters than Non-Local with inner width C/2,
            which has 2C^2 + 2.5C.
        norm: ``"batch"``, or ``"none"``; then the fusing convolution starts at zero on the features in its place.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1, or `interaction`, `fusion` or `norm` is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(CPSAM(64)(x), x)
        True

    Source:
        Gong et al., CPSAM, ICONIP 2021, doi:10.1007/978-3-030-92185-9_16; the abstract alone is public. Its words: "infers attention maps
        along channel and spatial dimensions in parallel" are the two branches on the same x, "combine together through the conv layer" is
        F. Ours: how the channels interact, which convolution F is, the residual form with a zero-weight norm, and the identity start. The
        defaults are provisional until a study on a validation split has chosen them.
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
        self.in_channels, self.reduction, self.interaction, self.fusion, self.norm = in_channels, reduction, interaction, fusion, norm
        self.channel_squeeze = ChannelSqueezeAttention(in_channels, reduction=reduction, device=device, dtype=dtype)
        self.position_squeeze = PositionSqueezeAttention(
            in_channels, reduction=reduction, interaction=interaction, device=device, dtype=dtype
        )
        self.fuse = FUSIONS[fusion](in_channels, norm=norm, device=device, dtype=dtype)
        self.batch_norm = residual_norm(norm, in_channels, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, reduction={self.reduction}, interaction={self.interaction}, fusion={self.fusion}, norm={self.norm}"

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and self.goes_fused(x):
            return self.forward_fused(x)
        context = self.channel_squeeze(x)  # (N, C, 1, 1)
        gated = self.position_squeeze(x)
        return x + self.batch_norm(self.fuse(gated, context))

    @torch.jit.unused
    def goes_fused(self, x: Tensor) -> bool:
        return fused.takes(x) and fused.is_bare(
            self.channel_squeeze, self.channel_squeeze.key, self.position_squeeze, self.fuse, self.fuse.conv
        )

    @torch.jit.unused
    def forward_fused(self, x: Tensor) -> Tensor:
        given, x = x, fused.prefer_channels_last(x)
        x, context, mean, maximum = fused.squeeze(x, self.channel_squeeze.key.weight)
        context = self.channel_squeeze.transform(context)  # (N, C, 1, 1)
        gates = self.position_squeeze.gates(mean, maximum)  # (N, C, 1, 1)
        weight, before, after = self.fuse.split(context)
        return fused.like(fused.fuse(x, gates, self.fuse.conv, weight, before, after, self.batch_norm), given)
