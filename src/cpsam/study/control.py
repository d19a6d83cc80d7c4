"""Adds the parameter-matched control: as many parameters as the block, and nothing else of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

from cpsam.attention import ConvControl
from cpsam.config.study import Contrast, Study
from cpsam.measure import count_parameters
from cpsam.run.arm import Arm, check_complete
from cpsam.study.costs import Costs
from cpsam.study.question import PRIMARY

CONTROL = "conv_control"


def with_control(arms: list[Arm], setting: str, study: Study, primary: Contrast) -> list[Arm]:
    """Returns the arms, and the parameter-matched control where it belongs and is missing.

    It belongs where both sides of the question are, if that was asked or is CPSAM against
    Non-Local, and where a question names it.
    """
    blocks = {arm.name: arm.attention for arm in arms}
    sides = blocks.get(primary.arm), blocks.get(primary.reference)
    both = None not in sides and (study.primary is not None or sides == PRIMARY)
    questions = (primary, *study.contrasts)
    named = any(
        CONTROL in (question.arm, question.reference)
        for question in questions
        if question.setting == setting
    )
    if not (both or named) or any(arm.attention == CONTROL for arm in arms):
        return arms
    return [*arms, Arm(CONTROL, CONTROL)]


def complete_controls(
    arms: list[Arm], costs: Costs, primary: Contrast
) -> tuple[list[Arm], list[str]]:
    """Returns the arms with the widths of their controls, and a note on how near these came.

    The target is the primary arm. Where that has no parameters or is the control itself, the target
    is the reference, or else the first CPSAM.
    """
    by_name = {arm.name: arm for arm in arms}
    sides = [
        by_name[name]
        for name in (primary.arm, primary.reference)
        if primary.arm in by_name and name in by_name
    ]
    sides = [arm for arm in sides if arm.attention != CONTROL]
    targets = (*sides, *(arm for arm in arms if arm.attention == "cpsam"), Arm("cpsam", "cpsam"))
    completed, notes = [], []
    for arm in arms:
        if arm.attention == CONTROL and arm.missing:
            target = next(each for each in targets if arm_parameters(each, costs[each].widths))
            widths = costs[target].widths
            arm = match_parameters(arm, target, widths)
            ours, theirs = arm_parameters(arm, widths), arm_parameters(target, widths)
            notes.append(
                f"{arm.name} has {ours:,} parameters, {target.name} has {theirs:,}"
                f" ({(ours - theirs) / theirs:+.1%})."
            )
        completed.append(check_complete(arm))
    return completed, notes


def match_parameters(control: Arm, target: Arm, widths: Sequence[int]) -> Arm:
    """Returns a ``conv_control`` arm with the inner widths at which it matches another arm.

    A width is a whole number, so a single place can be off by some percent. The widths are chosen
    together, so that the total over all places comes as near as possible.

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
    """Returns the number of parameters that an arm adds at places of these channels."""
    make = arm.maker()
    return 0 if make is None else sum(count_parameters(make(channels)) for channels in widths)


def control_parameters(channels: int, hidden: int) -> int:
    return count_parameters(ConvControl(channels, hidden_channels=hidden, device="meta"))


def nearest_hidden(parameters: int, channels: int) -> int:
    one, two = control_parameters(channels, 1), control_parameters(channels, 2)
    return max(1, round((parameters - one) / (two - one)) + 1)
