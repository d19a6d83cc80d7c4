"""BAM: the sum of a channel map and a spatial map gates the features."""

from torch import Tensor, nn

from cpsam.attention._common import check_at_least_one, hidden_channels


class BAM(nn.Module):
    """Amplifies the features by a channel map and a spatial map.

    ``y = x * (1 + sigmoid(channel(mean_l x_l) + spatial(x)))``. The gate is multiplicative, so a
    new block is not the identity. It amplifies its input by about a half.

    Args:
        in_channels: Number of channels C of input and output.
        reduction: Bottleneck ratio of both maps; the hidden width is ``max(8, C // reduction)``.
        dilation: Dilation of the two 3x3 convolutions of the spatial map, in positions.

    Shape:
        - Input and output: (N, C, H, W). In training N is at least 2, because the channel map has
          a BatchNorm.

    Raises:
        ValueError: If `in_channels`, `reduction` or `dilation` is below 1.

    Example:
        >>> BAM(64).eval()(torch.randn(2, 64, 5, 7)).shape
        torch.Size([2, 64, 5, 7])

    Source:
        Park et al., BAM, 2018, arXiv:1807.06514: the sum of the two maps, as in the paper (the
        authors' code multiplies them). Norm and ReLU after each hidden layer are the code's. Our
        deviation: the hidden width is never below 8.
    """

    def __init__(
        self, in_channels: int, *, reduction: int = 16, dilation: int = 4, device=None, dtype=None
    ) -> None:
        super().__init__()
        check_at_least_one(dilation=dilation)
        self.in_channels, self.reduction, self.dilation = in_channels, reduction, dilation
        hidden = hidden_channels(in_channels, reduction)
        factory = {"device": device, "dtype": dtype}
        self.channel = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False, **factory),
            nn.BatchNorm2d(hidden, **factory),
            nn.ReLU(),
            nn.Conv2d(hidden, in_channels, 1, **factory),
        )
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, hidden, 1, bias=False, **factory),
            nn.BatchNorm2d(hidden, **factory),
            nn.ReLU(),
        ]
        for _ in range(2):
            wide = {"padding": dilation, "dilation": dilation, "bias": False}
            layers += [nn.Conv2d(hidden, hidden, 3, **wide, **factory)]
            layers += [nn.BatchNorm2d(hidden, **factory), nn.ReLU()]
        self.spatial = nn.Sequential(*layers, nn.Conv2d(hidden, 1, 1, **factory))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, reduction={self.reduction}, dilation={self.dilation}"

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(x.mean((2, 3), keepdim=True))  # (N, C, 1, 1)
        spatial = self.spatial(x)  # (N, 1, H, W)
        return x * (1 + (channel + spatial).sigmoid())
