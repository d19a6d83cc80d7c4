"""Small networks of residual blocks, and the places that are found in them."""

import torch
from torch import nn

from cpsam.insert.placement import resolve
from cpsam.insert.probe import probe


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, stride=1, kernel=3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """A shortcut that is a projection where the size changes."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.shortcut = ConvNorm(inputs, outputs, stride, 1) if stride > 1 else nn.Identity()
        self.first, self.second = ConvNorm(inputs, outputs, stride), ConvNorm(outputs, outputs)

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


def ends(model, at="every-branch"):
    return resolve(model, at, probe(model))
