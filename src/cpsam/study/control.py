"""The parameter-matched control: as many parameters as the block it is compared with, none of its
idea.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

from cpsam.attention import ConvControl
from cpsam.measure import count_parameters
from cpsam.run.arm import Arm


def match_parameters(control: Arm, target: Arm, widths: Sequence[int]) -> Arm:
    """Give `control`, a ``conv_control`` arm without a width, the inner widths at which it has the
    parameters of `target`.

    A width is a whole number, so one place alone can be off by some percent; the widths are chosen
    together, so that the total over all places is as near as it can be.

    Args:
        control: The arm to complete.
        target: The arm to match.
        widths: The channels of each place where blocks go.

    Returns:
        The control with an inner width for each number of channels.

    Example:
        >>> from cpsam.run.arm import parse_arm
        >>> match_parameters(parse_arm("conv_control"), parse_arm("cpsam"), [32, 64]).arguments
        {'hidden_channels': {'32': 23, '64': 23}}
    """
    places = Counter(widths)
    wanted = {channels: arm_parameters(target, [channels]) for channels in places}
    near = {channels: nearest_hidden(wanted[channels], channels) for channels in places}

    def distance(hidden: Mapping[int, int]) -> int:
        return abs(
            sum(
                (control_parameters(channels, hidden[channels]) - wanted[channels]) * count
                for channels, count in places.items()
            )
        )

    steps = product((0, -1, 1), repeat=len(places))
    choices = [
        {
            channels: max(1, near[channels] + step)
            for channels, step in zip(places, row, strict=True)
        }
        for row in steps
    ]
    best = min(choices, key=distance)
    # JSON has text keys only, and what is stored must equal what is read back.
    table = {str(channels): hidden for channels, hidden in sorted(best.items())}
    return Arm(control.name, control.attention, {**control.arguments, "hidden_channels": table})


def arm_parameters(arm: Arm, widths: Sequence[int]) -> int:
    """The parameters that an arm adds at places of these channels."""
    make = arm.maker()
    return 0 if make is None else sum(count_parameters(make(channels)) for channels in widths)


def control_parameters(channels: int, hidden: int) -> int:
    return count_parameters(ConvControl(channels, hidden_channels=hidden, device="meta"))


def nearest_hidden(parameters: int, channels: int) -> int:
    one, two = control_parameters(channels, 1), control_parameters(channels, 2)
    return max(1, round((parameters - one) / (two - one)) + 1)
