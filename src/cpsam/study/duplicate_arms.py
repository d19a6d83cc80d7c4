"""Arms of different names that are one block: `cpsam:reduction=16` and `cpsam:reduction=32` where
both come to the least width.
"""

from collections.abc import Hashable, Mapping, Sequence
from hashlib import sha256

import torch

from cpsam.config.recipe import Recipe
from cpsam.run.arm import Arm


def duplicate_arms(
    arms: Sequence[Arm], recipes: Mapping[str, Recipe], widths: Sequence[int]
) -> list[tuple[Arm, Arm]]:
    """Returns each arm that would be trained twice for nothing, after the first arm that is the
    same block.

    Every arm is looked at once, so the time grows with their number and no faster.

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
    """Returns the parameters of a block by name and shape, and a hash of what it makes of a drawn
    input with drawn parameters.

    It is in training, so that dropout counts too. As they start, most blocks are the identity, so
    parameters are drawn.
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
    # a block of somebody's own that wants maps of another size: this is a hint, and no reason to
    # refuse it
    except Exception:
        return arm.name
