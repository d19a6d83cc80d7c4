"""Finds arms of different names that are one block.

Two reductions, for example, may both give the least width.
"""

from collections.abc import Hashable, Mapping, Sequence
from hashlib import sha256

import torch

from cpsam.config.recipe import Recipe
from cpsam.run.arm import Arm


def duplicate_arms(
    arms: Sequence[Arm], recipes: Mapping[str, Recipe], widths: Sequence[int]
) -> list[tuple[Arm, Arm]]:
    """Returns pairs of arms that are the same block: the first such arm, and each later one.

    Each arm is tried once, so the time is proportional to the number of arms.

    Args:
        arms: Of one setting.
        recipes: Arm -> how it is trained; under two recipes one block is two arms.
        widths: The channels of the places where blocks go.

    Example:
        >>> from cpsam.run.arm import parse_arm
        >>> arms = [parse_arm(f"cpsam:reduction={ratio}") for ratio in (16, 32, 4)]
        >>> recipes = {arm.name: Recipe() for arm in arms}
        >>> [(one.name, other.name) for one, other in duplicate_arms(arms, recipes, [32, 64])]
        [('cpsam:reduction=16', 'cpsam:reduction=32')]
    """
    first: dict[Hashable, Arm] = {}
    found = []
    for arm in arms if widths else ():
        if arm.attention == "none":
            continue
        key = (
            arm.attention,
            recipes[arm.name],
            tuple(response(arm, channels) for channels in sorted(set(widths))),
        )
        if (other := first.setdefault(key, arm)) is not arm:
            found.append((other, arm))
    return found


def response(arm: Arm, channels: int) -> Hashable:
    """Returns the names and shapes of a block's parameters, and a hash of its output.

    Input and parameters are drawn, because most blocks start as the identity. The block is in
    training mode, so that dropout counts too.
    """
    make = arm.maker()
    assert make is not None
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            block = make(channels).train()
            torch.manual_seed(0)
            for parameter in block.parameters():
                parameter.normal_(std=0.5)
            # no negative zero: its bytes differ
            answer = block(torch.randn(2, channels, 7, 5)) + 0.0
            shapes = tuple(
                (name, tuple(parameter.shape)) for name, parameter in block.named_parameters()
            )
            return shapes, sha256(answer.contiguous().numpy().tobytes()).digest()
    # A block of one's own may want maps of another size. The warning is a hint, so it is left out.
    except Exception:
        return arm.name
