"""Arms of different names that are one block: `cpsam:reduction=16` and `cpsam:reduction=32` where both come to the least width."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from cpsam.study.arm import Arm
from cpsam.train.recipe import Recipe


def twins(arms: Sequence[Arm], recipes: Mapping[str, Recipe], widths: Sequence[int]) -> list[tuple[Arm, Arm]]:
    """The pairs of arms that would be trained twice for nothing.

    Args:
        arms: Of one setting.
        recipes: Arm -> how it is trained; under two recipes one block is two arms.
        widths: The channels of the places where blocks go.

    Example:
        >>> from cpsam.study.arm import parse_arm
        >>> arms = [parse_arm("cpsam"), parse_arm("cpsam:reduction=32"), parse_arm("cpsam:reduction=4")]
        >>> [(one.name, other.name) for one, other in twins(arms, {arm.name: Recipe() for arm in arms}, [32, 64])]
        [('cpsam', 'cpsam:reduction=32')]
    """
    return [
        (one, other)
        for one, other in combinations(arms, 2)
        if one.attention == other.attention != "none"
        and recipes[one.name] == recipes[other.name]
        and widths
        and all(alike(one, other, channels) for channels in sorted(set(widths)))
    ]


def alike(one: Arm, other: Arm, channels: int) -> bool:
    """Whether the blocks have the same parameters by name and shape, and with the same values of them map the same input to the same."""
    try:
        (shapes, answer), (other_shapes, other_answer) = response(one, channels), response(other, channels)
    except Exception:  # a block of somebody's own that wants maps of another size: this is a hint, and no reason to refuse it
        return False
    return shapes == other_shapes and torch.equal(answer, other_answer)


def response(arm: Arm, channels: int) -> tuple[dict[str, torch.Size], Tensor]:
    """In training, so that dropout counts too, with drawn parameters: as they start, most blocks are the identity."""
    make = arm.maker()
    assert make is not None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        block = make(channels).train()
        torch.manual_seed(0)
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
        return {name: parameter.shape for name, parameter in block.named_parameters()}, block(torch.randn(2, channels, 7, 5))
