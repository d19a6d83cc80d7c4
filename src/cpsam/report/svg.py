"""What the pictures of a report are drawn with: axes, marks, labels that do not cover each other.
Numbers in, SVG out.
"""

import re
from collections.abc import Callable, Sequence
from math import ceil, copysign, floor, log10

from cpsam.report.markup import Markup, element
from cpsam.report.table import MINUS, count

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 410, 30, 250  # the frame inside which things are drawn
ZERO_SLOT = 34  # pixels that a logarithmic axis leaves to the cost of nothing
COLOURS = 8  # classes arm-0 .. arm-7 in the style sheet

FAR = 26  # pixels from a mark to its label, from which on a line joins them

Box = tuple[float, float, float, float]  # left, top, right, bottom


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that cover low to high: the steps are 1, 2 or 5 times a power of ten."""
    if low == high:
        low, high = low - 0.5, high + 0.5
    span = high - low
    power = 10 ** floor(log10(span / most))
    step = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= most)
    return [index * step for index in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def tick_words(ticks: Sequence[float], signed: bool = False) -> list[str]:
    """The numbers of a linear axis, with as many decimals as its step needs."""
    step = ticks[1] - ticks[0]
    digits = max(0, ceil(-log10(step) - 1e-9))
    return [
        "0" if abs(tick) < 1e-9 else f"{tick:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)
        for tick in ticks
    ]


def short(tick: float) -> str:
    """A round count without the zeros behind its point: ``200 k``."""
    return re.sub(r"\.?0+(?= |$)", "", count(tick)) if tick >= 1000 else f"{tick:g}"


def between(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """The linear map that sends low to start and high to stop."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (stop - start)


def cost_axis(costs: Sequence[float]) -> tuple[Callable[[float], float], list[float], bool]:
    """Positions, ticks, and whether the axis is logarithmic, with a place of its own for zero, as
    where blocks differ a thousandfold.
    """
    positive = [cost for cost in costs if cost > 0]
    # nothing near zero: the room is for what differs
    if len(positive) == len(costs) and 1 < max(positive) / min(positive) < 4:
        margin = 0.1 * (max(positive) - min(positive))
        ticks = linear_ticks(min(positive) - margin, max(positive) + margin)
        return between(ticks[0], ticks[-1], LEFT + 12, RIGHT - 12), ticks, False
    if not positive or max(positive) <= 20 * min(positive):
        ticks = linear_ticks(0, max(costs, default=0) or 1)
        return between(0, max(ticks[-1], 1e-9), LEFT + 12, RIGHT - 12), ticks, False
    low, high = log10(min(positive)) - 0.1, log10(max(positive)) + 0.1
    place = between(low, high, LEFT + ZERO_SLOT, RIGHT - 12)
    factors = (1, 2, 5) if high - low < 2 else (1,)
    ticks = [
        factor * 10**power for power in range(floor(low), ceil(high) + 1) for factor in factors
    ]
    zero = [0.0] if min(costs) <= 0 else []
    shown = [*zero, *(tick for tick in ticks if low <= log10(tick) <= high)]
    return lambda cost: place(log10(cost)) if cost > 0 else LEFT + 12, shown, True


def spread(
    positions: Sequence[float], gap: float, left: float = LEFT + 8, right: float = RIGHT - 8
) -> list[float]:
    """Positions at least `gap` apart, in their order: those that would cover each other stand as a
    group around their middle.
    """
    gap = min(gap, (right - left) / max(1, len(positions) - 1))

    def first(group: list[int]) -> float:
        width = gap * (len(group) - 1)
        return min(
            max(sum(positions[index] for index in group) / len(group) - width / 2, left),
            right - width,
        )

    groups: list[list[int]] = []
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        groups.append([index])
        while len(groups) > 1 and first(groups[-1]) - first(groups[-2]) < gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = {
        index: first(group) + rank * gap for group in groups for rank, index in enumerate(group)
    }
    return [placed[index] for index in range(len(positions))]


def place_label(text: str, x: float, y: float, taken: list[Box]) -> Markup:
    """The text beside (x, y) where it covers nothing of `taken`, which then holds its box as well;
    from far off, a line leads to it.
    """
    width = 7.8 * len(text)
    for shift in (0, -13, 13, -26, 26, -39, 39, -52, 52, -65, 65):
        sides = [(x + 17, "start"), (x - 17 - width, "end")]
        for start, anchor in [(x - width / 2, "middle"), *sides] if shift else sides:
            box = (start, y + shift - 6, start + width, y + shift + 7)
            free = all(
                box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
                for other in taken
            )
            if (
                free
                and box[0] >= LEFT
                and box[2] <= RIGHT + 6
                and box[1] >= TOP - 8
                and box[3] <= BOTTOM
            ):
                taken.append(box)
                at = {"start": start, "end": start + width, "middle": start + width / 2}[anchor]
                words = element(
                    "text",
                    text,
                    x=f"{at:.1f}",
                    y=f"{y + shift + 4:.1f}",
                    text_anchor=anchor,
                    class_="label",
                )
                side = {"start": 1, "end": -1, "middle": 0}[anchor]
                edge = y + shift if side else y + shift - copysign(7, shift)
                leader = (
                    line(x + 11 * side, y, at - 2 * side, edge, "leader")
                    if abs(shift) >= FAR
                    else None
                )
                return element("g", leader, words)
    at, anchor = (x + 17, "start") if x + 17 + width <= RIGHT + 6 else (x - 17, "end")
    return element(
        "text", text, x=f"{at:.1f}", y=f"{y + 4:.1f}", text_anchor=anchor, class_="label"
    )


def frame(
    identity: str, title: str, description: str, *children: object, height: float = HEIGHT
) -> Markup:
    names = (
        element("title", title, id=f"{identity}-title"),
        element("desc", description, id=f"{identity}-desc"),
    )
    labelled = f"{identity}-title {identity}-desc"
    return element(
        "svg",
        *names,
        *children,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_labelledby=labelled,
        id=identity,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element(
        "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=class_
    )


def below(text: str, x: float, bottom: float = BOTTOM) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=bottom + 18, text_anchor="middle", class_="tick")


def axis_title(text: str, bottom: float = BOTTOM) -> Markup:
    return element(
        "text", text, x=(LEFT + RIGHT) / 2, y=bottom + 40, text_anchor="middle", class_="axis"
    )


def identity_of(words: str, setting: str | None) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    # a setting's name has no white space
    return f"plot-{name}.{setting}" if setting else f"plot-{name}"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front of (cost, value): what nothing as cheap beats, from the cheapest on.

    Example:
        >>> front([(3, 0.7), (1, 0.5), (2, 0.4), (2, 0.6), (3, 0.6)])
        [1, 3, 0]
    """
    chosen: list[int] = []
    for index in sorted(
        range(len(points)), key=lambda index: (points[index][0], -points[index][1])
    ):
        if not chosen or points[index][1] > points[chosen[-1]][1]:
            chosen.append(index)
    return chosen


def path(places: Sequence[tuple[float, float]], class_: str, close: bool = False) -> Markup:
    steps = " ".join(
        f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(places)
    )
    return element("path", d=steps + (" Z" if close else ""), class_=class_)


def height_axis(
    values: Sequence[float], margin: float, ceiling: float
) -> tuple[Callable[[float], float], list[Markup]]:
    """Positions of values between zero and `ceiling`, and the grid with its numbers."""
    ticks = linear_ticks(max(0, min(values) - margin), min(ceiling, max(values) + margin))
    place = between(ticks[0], ticks[-1], BOTTOM, TOP)
    grid = [line(LEFT, place(tick), RIGHT, place(tick), "grid") for tick in ticks]
    marks = [
        element(
            "text", text, x=LEFT - 8, y=f"{place(tick) + 4:.1f}", text_anchor="end", class_="tick"
        )
        for tick, text in zip(ticks, tick_words(ticks), strict=True)
    ]
    return place, [*grid, *marks]


def cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
