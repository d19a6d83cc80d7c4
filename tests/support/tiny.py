"""A data set and networks so small that a run takes a fraction of a second.

All sizes are odd or unequal.
"""

import numpy as np
import torch
from torch import nn

from cpsam.data.dataset import Dataset
from cpsam.data.split import Split
from cpsam.train import Recipe

RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05, precision="float32")


def tiny_dataset(train: int = 29, test: int = 13, classes: int = 7) -> Dataset:
    draw = np.random.default_rng(3)

    def split(count: int) -> Split:
        images = draw.integers(0, 256, (count, 2, 5, 6), dtype=np.uint8)
        return Split(torch.from_numpy(images), torch.from_numpy(draw.integers(0, classes, count)))

    return Dataset(
        "tiny",
        split(train),
        split(test),
        tuple(map(str, range(classes))),
        (0.5, 0.4),
        (0.3, 0.2),
        1,
        True,
        "0123",
    )


class TinyNet(nn.Module):
    """Has all that a resumed run could get wrong.

    These are dropout, the buffers of BatchNorm, momentum, and a weight that is used twice.
    """

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.again = nn.Conv2d(5, 5, 3, padding=1)
        self.tied = nn.Conv2d(5, 5, 3, padding=1)
        self.tied.weight = self.again.weight
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(5, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).relu()
        return self.fc(self.drop(self.tied(self.again(x).relu())).mean((2, 3)))


def tiny_model(seed: int = 1) -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet()


class Block(nn.Module):
    """Is a residual block whose parts have torchvision's names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


def tiny_residual(seed: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            Block(5),
            nn.Dropout(0.2),
            Block(5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 7),
        )


# Everything that is random or has a state: dropout, stochastic depth, mixing, average,
# micro-batches and clipping.
FULL = {
    "epochs": 3,
    "batch_size": 8,
    "lr": 0.02,
    "label_smoothing": 0.1,
    "accumulate": 2,
    "clip_norm": 0.5,
    "ema_decay": 0.9,
    "mixup": 0.3,
    "cutmix": 0.7,
    "drop_rate": 0.2,
    "drop_path": 0.4,
    "precision": "float32",
}
