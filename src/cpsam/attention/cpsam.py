"""CPSAM, the channel and position squeeze attention module: ``y = x + norm(F(p, c))``."""

import torch
from torch import Tensor, nn

from cpsam.attention import _fast_path
from cpsam.attention.arguments import check_choice
from cpsam.attention.channel_squeeze import ChannelSqueezeAttention
from cpsam.attention.fusion import FUSIONS
from cpsam.attention.identity_start import residual_norm
from cpsam.attention.position_squeeze import PositionSqueezeAttention


class CPSAM(nn.Module):
    """Give every position the context of the whole image, and re-weight its channels, in parallel.

    ``y = x + norm(F(p, c))`` with the context ``c = ChannelSqueezeAttention(x)``, the gated
    features ``p = PositionSqueezeAttention(x)`` and a fusing convolution F. The norm's weight
    starts at zero, so a new block is the identity. Gate and context start at one and zero, so it is
    also its own control, the bare fusing convolution (:class:`~cpsam.attention.BareFusion`):
    attention has to earn what it adds.

    `forward` is the definition. In eager float32 and float64 a faster way computes the same,
    gradients included, with fewer passes over memory: one product for mean and context, on a CPU in
    channels-last whatever the input is in, and in eval mode with the norm inside the weights of the
    convolution. It is taken while all inner layers are as the block built them. The definition runs
    when the block is traced, scripted, compiled or exported, under autocast, in half precision, and
    as soon as an inner layer has a hook, a parametrisation, a wrapper or another class. Hooks on
    the block itself change nothing.

    Args:
        in_channels: Channels C of input and output.
        reduction: Ratio of both bottlenecks; their width is ``max(8, C // reduction)``.
        interaction: How the position-squeeze branch relates the channels: ``"mlp"`` or
            ``"affinity"``.
        fusion: F: ``"sum"``, 1x1 of p + c; ``"concat"``, 1x1 of [p, c]; ``"depthwise"``, 3x3
            depthwise of p + c; ``"grouped"``, the depthwise form of the concatenation. With a dense
            concatenation a block has more parameters than Non-Local with inner width C/2, which has
            2C^2 + 2.5C.
        norm: ``"batch"``, or ``"none"``; then the fusing convolution starts at zero on the features
            in its place.

    Shape:
        - Input and output: (N, C, H, W).

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1, or `interaction`, `fusion` or `norm`
            is unknown.

    Example:
        >>> x = torch.randn(2, 64, 5, 7)
        >>> torch.equal(CPSAM(64)(x), x)
        True

    Source:
        Gong et al., CPSAM, ICONIP 2021, doi:10.1007/978-3-030-92185-9_16; the abstract alone is
        public. Its words: "infers attention maps along channel and spatial dimensions in parallel"
        are the two branches on the same x, "combine together through the conv layer" is F. Ours:
        how the channels interact, which convolution F is, the residual form with a zero-weight
        norm, and the identity start. The defaults are provisional until a study on a validation
        split has chosen them.
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
        self.in_channels, self.reduction, self.interaction, self.fusion, self.norm = (
            in_channels,
            reduction,
            interaction,
            fusion,
            norm,
        )
        self.channel_squeeze = ChannelSqueezeAttention(
            in_channels, reduction=reduction, device=device, dtype=dtype
        )
        self.position_squeeze = PositionSqueezeAttention(
            in_channels, reduction=reduction, interaction=interaction, device=device, dtype=dtype
        )
        self.fuse = FUSIONS[fusion](in_channels, norm=norm, device=device, dtype=dtype)
        self.post_norm = residual_norm(norm, in_channels, device=device, dtype=dtype)
        self.built = _fast_path.describe(self)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, reduction={self.reduction}, interaction={self.interaction},"
            f" fusion={self.fusion}, norm={self.norm}"
        )

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript skips the body of this condition alone
            if _fast_path.applies(self, x):
                return _fast_path.cpsam(self, x)
        context = self.channel_squeeze(x)  # (N, C, 1, 1)
        gated = self.position_squeeze(x)
        return x + self.post_norm(self.fuse(gated, context))
