"""Networks that are local by construction: no position sees another cell before the pooling."""

from torch import Tensor, nn

POINTWISE = {"pointwise8": 8, "pointwise16": 16, "pointwise32": 32, "pointwise64": 64}
"""The width of each network, by name."""

CELL = (8, 16)
"""Height and width of a cell, in pixels; each position of the network sees one cell."""

READER = 64  # channels of the stem before it narrows to the width


class PointwiseBlock(nn.Module):
    """Adds two 1x1 convolutions with norms to the features.

    No ReLU follows the addition. With one, features of single cells died in early training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Pointwise(nn.Module):
    """Reads each cell of an image on its own, with 1x1 convolutions, and takes the mean.

    Only a block that is inserted lets one position know about another.

    Args:
        width: Channels of both stages, so of what a block sees. The stem always has 64 channels
            before it narrows to them, so that a narrow network reads digits too.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.

    Shape:
        - Input: (N, in_channels, H, W), at least one cell of 8x16; a rest at the edge is ignored.
        - Output: (N, num_classes).

    Example:
        >>> Pointwise(32, 10, in_channels=1)(torch.zeros(2, 1, 24, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(self, width: int, num_classes: int, *, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, READER, CELL, CELL, bias=False),
            nn.BatchNorm2d(READER),
            nn.ReLU(inplace=True),
            nn.Conv2d(READER, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.stage1 = nn.Sequential(PointwiseBlock(width))
        self.stage2 = nn.Sequential(PointwiseBlock(width), PointwiseBlock(width))
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.stage1(self.stem(x)))
        return self.fc(x.mean((2, 3)))
