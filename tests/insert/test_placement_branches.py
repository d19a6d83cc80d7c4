"""The ends of branches, in home-made blocks."""

import pytest
import torch
from support.branches import ConvNorm, Residual, ends
from torch import nn

from cpsam.errors import UserError


class Plain(Residual):
    """The same without a shortcut where the size changes, as in MobileNet."""

    def forward(self, x):
        y = self.second(torch.relu(self.first(x)))
        return y if isinstance(self.shortcut, ConvNorm) else x + y


class Partial(nn.Module):
    """Residual blocks on half of the channels, and all that they return side by side, as in
    YOLO.
    """

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.entry = ConvNorm(inputs, outputs, stride)
        self.inner = nn.ModuleList(Residual(outputs // 2, outputs // 2) for _ in range(2))
        self.exit = ConvNorm(2 * outputs, outputs, kernel=1)

    def forward(self, x):
        parts = list(self.entry(x).chunk(2, 1))
        for block in self.inner:
            parts.append(block(parts[-1]))
        return self.exit(torch.cat(parts, 1))


class Shuffled(Partial):
    """No addition at all."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__(inputs, outputs, stride)
        self.inner = nn.ModuleList(ConvNorm(outputs // 2, outputs // 2) for _ in range(2))


class Reparameterised(nn.Module):
    """Parallel convolutions that become one, and a norm as shortcut where the size stays, as in
    RepVGG.
    """

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.large, self.small = (
            ConvNorm(inputs, outputs, stride),
            ConvNorm(inputs, outputs, stride, 1),
        )
        self.shortcut = nn.BatchNorm2d(inputs) if stride == 1 else None
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        y = self.drop(self.large(x) + self.small(x))
        return self.act(y if self.shortcut is None else y + self.shortcut(x))


class Functional(nn.Module):
    """What is added comes from no module."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.stride = stride

    def forward(self, x):
        y = nn.functional.conv2d(x, self.weight, stride=self.stride, padding=1)
        return y if self.stride > 1 else x + y


def network(*kinds):
    """Two blocks per stage."""
    layers = [
        nn.Sequential(kind(8 * 2**i, 16 * 2**i, 2), kind(16 * 2**i, 16 * 2**i))
        for i, kind in enumerate(kinds)
    ]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers)


@pytest.mark.parametrize(
    "kind, first, second",
    [
        (Residual, ["second"], ["second"]),
        (Plain, ["second"], ["second"]),
        (Partial, ["inner.0.second", "inner.1.second"], ["inner.0.second", "inner.1.second"]),
        (Reparameterised, ["act"], ["drop"]),
    ],
)
def test_a_branch_ends_at_the_outermost_module_that_returns_what_is_added(kind, first, second):
    expected = [
        f"{stage}.{block}.{path}"
        for stage in (1, 2, 3)
        for block, paths in ((0, first), (1, second))
        for path in paths
    ]
    assert ends(network(kind, kind, kind)) == expected


def test_the_branches_of_blocks_of_several_classes():
    assert ends(network(Residual, Partial)) == [
        *("1.0.second", "1.1.second"),
        *(f"2.{block}.inner.{inner}.second" for block in (0, 1) for inner in (0, 1)),
    ]


@pytest.mark.parametrize(
    "kinds, message",
    [
        (
            (Shuffled, Shuffled),
            (
                "finds no branch in '1.0': it adds nothing to what it was given, .* by"
                " concatenation alone"
            ),
        ),
        ((Residual, Shuffled), "finds no branch in '2.0'"),
        ((Functional, Functional), "finds no branch in '1.0'"),
        ((ConvNorm, ConvNorm), "finds no branch in '1.0': it adds nothing to what it was given$"),
    ],
)
def test_a_network_with_blocks_that_add_nothing_is_refused_as_a_whole(kinds, message):
    with pytest.raises(UserError, match=message):
        ends(network(*kinds))
