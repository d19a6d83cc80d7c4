"""Elements of SVG, axes, and labels that do not cover each other: what pictures are drawn with."""

import re
from collections.abc import Callable, Sequence
from math import ceil, copysign, floor, log10

from markupsafe import Markup

from cpsam.report.escape import html
from cpsam.report.values import MINUS, count

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 410, 30, 250  # the frame inside which things are drawn
ZERO_SLOT = 34  # pixels of a logarithmic axis for a cost of zero
FAR = 26  # pixels; a line joins a mark and a label that are so far apart
SHIFTS = (0, -13, 13, -26, 26, -39, 39, -52, 52, -65, 65)  # where a label may stand, in pixels

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Scale = Callable[[float], float]


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Returns one element.

    Args:
        name: Its tag.
        children: Markup or text; None is left out.
        attributes: An underscore in a name stands for a hyphen, one at its end for nothing
            (``class_``). A number has at most two decimals. None is left out.

    Example:
        >>> element("text", "1 < 2", x=0.125, class_="axis", id=None)
        Markup('<text x="0.12" class="axis">1 &lt; 2</text>')
    """
    # html() escapes each value. Joining plain strings is faster than Markup.format: a report of
    # 20,000 runs takes 6 s instead of 19 s.
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html(rounded(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(html(child) for child in children if child is not None)
    return Markup(f"<{name}{pairs}>{inner}</{name}>")


def rounded(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def text(words: str, x: float, y: float, class_: str, anchor: str | None = None) -> Markup:
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def group(class_: str | None, *children: object) -> Markup:
    return element("g", *children, class_=class_)


def dot(x: float, y: float, radius: float, class_: str, tip: str) -> Markup:
    return element("circle", element("title", tip), cx=x, cy=y, r=radius, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[Point], class_: str, close: bool = False) -> Markup:
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=f"M{steps}{' Z' if close else ''}", class_=class_)


def frame(
    identity: str, title: str, description: str, *children: object, height: float = HEIGHT
) -> Markup:
    """Returns a whole picture, with a name and a description for readers who cannot see it."""
    return element(
        "svg",
        element("title", title, id=f"{identity}-title"),
        element("desc", description, id=f"{identity}-desc"),
        *children,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_labelledby=f"{identity}-title {identity}-desc",
        id=identity,
    )


def identity_of(words: str, setting: str | None) -> str:
    """Returns the id of a picture. The name of a setting has no white space, as an id must not."""
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return f"plot-{name}.{setting}" if setting else f"plot-{name}"


def axis_name(words: str) -> Markup:
    """Returns the name of the vertical axis."""
    return text(words, 4, TOP - 16, "axis")


def axis_title(words: str, bottom: float = BOTTOM) -> Markup:
    """Returns the name of the horizontal axis."""
    return text(words, (LEFT + RIGHT) / 2, bottom + 40, "axis", "middle")


def below(words: str, x: float, bottom: float = BOTTOM) -> Markup:
    """Returns the number of a tick of the horizontal axis."""
    return text(words, x, bottom + 18, "tick", "middle")


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round numbers that cover low to high; a step is 1, 2 or 5 times a power of ten."""
    if low == high:
        low, high = low - 0.5, high + 0.5
    span = high - low
    power = 10 ** floor(log10(span / most))
    step = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= most)
    return [index * step for index in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def tick_words(ticks: Sequence[float], signed: bool = False) -> list[str]:
    """Returns the numbers of a linear axis, with as many decimals as its step needs."""
    step = ticks[1] - ticks[0]
    digits = max(0, ceil(-log10(step) - 1e-9))
    sign = "+" if signed else ""
    return [
        "0" if abs(tick) < 1e-9 else f"{tick:{sign}.{digits}f}".replace("-", MINUS)
        for tick in ticks
    ]


def short(tick: float) -> str:
    """Returns a round count without the zeros behind its point: ``200 k``."""
    return re.sub(r"\.?0+(?= |$)", "", count(tick)) if tick >= 1000 else f"{tick:g}"


def between(low: float, high: float, start: float, stop: float) -> Scale:
    """Returns the linear map that sends low to start and high to stop."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (stop - start)


def height_axis(
    values: Sequence[float], margin: float, ceiling: float
) -> tuple[Scale, list[Markup]]:
    """Returns the vertical scale of values between 0 and `ceiling`, and its grid with numbers."""
    ticks = linear_ticks(max(0, min(values) - margin), min(ceiling, max(values) + margin))
    scale = between(ticks[0], ticks[-1], BOTTOM, TOP)
    grid = [line(LEFT, scale(tick), RIGHT, scale(tick), "grid") for tick in ticks]
    numbers = [
        text(words, LEFT - 8, scale(tick) + 4, "tick", "end")
        for tick, words in zip(ticks, tick_words(ticks), strict=True)
    ]
    return scale, [*grid, *numbers]


def cost_axis(costs: Sequence[float]) -> tuple[Scale, list[float], bool]:
    """Returns the horizontal scale of costs, its ticks, and whether it is logarithmic.

    It is logarithmic where costs differ a thousandfold; zero then has a slot of its own.
    """
    positive = [cost for cost in costs if cost > 0]
    # Without a cost near zero, the axis covers only the range in which costs differ.
    if len(positive) == len(costs) and 1 < max(positive) / min(positive) < 4:
        margin = 0.1 * (max(positive) - min(positive))
        ticks = linear_ticks(min(positive) - margin, max(positive) + margin)
        return between(ticks[0], ticks[-1], LEFT + 12, RIGHT - 12), ticks, False
    if not positive or max(positive) <= 20 * min(positive):
        ticks = linear_ticks(0, max(costs, default=0) or 1)
        return between(0, max(ticks[-1], 1e-9), LEFT + 12, RIGHT - 12), ticks, False
    low, high = log10(min(positive)) - 0.1, log10(max(positive)) + 0.1
    scale = between(low, high, LEFT + ZERO_SLOT, RIGHT - 12)
    factors = (1, 2, 5) if high - low < 2 else (1,)
    powers = range(floor(low), ceil(high) + 1)
    ticks = [factor * 10**power for power in powers for factor in factors]
    zero = [0.0] if min(costs) <= 0 else []
    shown = [*zero, *(tick for tick in ticks if low <= log10(tick) <= high)]
    return lambda cost: scale(log10(cost)) if cost > 0 else LEFT + 12, shown, True


def spread(
    positions: Sequence[float], gap: float, left: float = LEFT + 8, right: float = RIGHT - 8
) -> list[float]:
    """Returns positions at least `gap` apart, in their order.

    Positions that would cover each other stand as a group around their middle.
    """
    gap = min(gap, (right - left) / max(1, len(positions) - 1))

    def first(group: list[int]) -> float:
        width = gap * (len(group) - 1)
        middle = sum(positions[index] for index in group) / len(group)
        return min(max(middle - width / 2, left), right - width)

    groups: list[list[int]] = []
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        groups.append([index])
        while len(groups) > 1 and first(groups[-1]) - first(groups[-2]) < gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = {
        index: first(group) + rank * gap for group in groups for rank, index in enumerate(group)
    }
    return [moved[index] for index in range(len(positions))]


def place_label(words: str, x: float, y: float, taken: list[Box]) -> Markup:
    """Returns text beside (x, y) that covers nothing of `taken`, and adds its box there.

    A line joins the text and its mark where they are far apart.
    """
    width = 7.8 * len(words)
    sides = [(x + 17, "start", 1), (x - 17 - width, "end", -1)]
    for shift in SHIFTS:
        for start, anchor, side in [(x - width / 2, "middle", 0), *sides] if shift else sides:
            box = (start, y + shift - 6, start + width, y + shift + 7)
            if is_inside(box) and not any(overlap(box, other) for other in taken):
                taken.append(box)
                at = {1: start, -1: start + width, 0: start + width / 2}[side]
                edge = y + shift if side else y + shift - copysign(7, shift)
                leader = line(x + 11 * side, y, at - 2 * side, edge, "leader")
                label = text(words, at, y + shift + 4, "label", anchor)
                return group(None, leader if abs(shift) >= FAR else None, label)
    at, anchor = (x + 17, "start") if x + 17 + width <= RIGHT + 6 else (x - 17, "end")
    return text(words, at, y + 4, "label", anchor)


def is_inside(box: Box) -> bool:
    return box[0] >= LEFT and box[2] <= RIGHT + 6 and box[1] >= TOP - 8 and box[3] <= BOTTOM


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
