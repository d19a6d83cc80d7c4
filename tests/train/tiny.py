"""A data set and a network so small that a run takes a fraction of a second. Odd, unequal sizes throughout."""

import numpy as np
import torch
from torch import nn

from cpsam.data.dataset import Dataset, Split
from cpsam.train import Recipe

RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05, precision="float32")


def tiny_dataset(train: int = 29, test: int = 13, classes: int = 7) -> Dataset:
    draw = np.random.default_rng(3)

    def split(count: int) -> Split:
        images = draw.integers(0, 256, (count, 2, 5, 6), dtype=np.uint8)
        return Split(torch.from_numpy(images), torch.from_numpy(draw.integers(0, classes, count)))

    return Dataset("tiny", split(train), split(test), tuple(map(str, range(classes))), (0.5, 0.4), (0.3, 0.2), 1, True, "0123")


class TinyNet(nn.Module):
    """With all that a resumed run could get wrong: dropout, BatchNorm's buffers, momentum, a weight used twice."""

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
