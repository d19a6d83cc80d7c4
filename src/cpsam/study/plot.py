"""The pictures of a report as SVG: accuracy against cost, and differences with their intervals. Numbers in, markup out."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

from cpsam.study.markup import Markup, element
from cpsam.study.table import MINUS, count, percent, points

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 410, 30, 250  # the frame inside which things are drawn
ZERO_SLOT = 34  # pixels that a logarithmic axis leaves to the cost of nothing
COLOURS = 8  # classes arm-0 .. arm-7 in the style sheet

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
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    return ["0" if abs(tick) < 1e-9 else f"{tick:{'+' if signed else ''}.{digits}f}".replace("-", MINUS) for tick in ticks]


def short(tick: float) -> str:
    """A round count without the zeros behind its point: ``200 k``."""
    return re.sub(r"\.?0+(?= |$)", "", count(tick)) if tick >= 1000 else f"{tick:g}"


def between(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """The linear map that sends low to start and high to stop."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (stop - start)


def cost_axis(costs: Sequence[float]) -> tuple[Callable[[float], float], list[float], bool]:
    """Positions, ticks, and whether the axis is logarithmic, with a place of its own for zero, as where blocks differ a thousandfold."""
    positive = [cost for cost in costs if cost > 0]
    if not positive or max(positive) <= 20 * min(positive):
        ticks = linear_ticks(0, max(costs, default=0) or 1)
        return between(0, max(ticks[-1], 1e-9), LEFT + 12, RIGHT - 12), ticks, False
    low, high = log10(min(positive)) - 0.1, log10(max(positive)) + 0.1
    place = between(low, high, LEFT + ZERO_SLOT, RIGHT - 12)
    factors = (1, 2, 5) if high - low < 2 else (1,)
    ticks = [factor * 10**power for power in range(floor(low), ceil(high) + 1) for factor in factors]
    zero = [0.0] if min(costs) <= 0 else []
    shown = [*zero, *(tick for tick in ticks if low <= log10(tick) <= high)]
    return lambda cost: place(log10(cost)) if cost > 0 else LEFT + 12, shown, True


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, in their order: those that would cover each other stand as a group around their middle."""
    left, right = LEFT + 8, RIGHT - 8
    gap = min(gap, (right - left) / max(1, len(positions) - 1))

    def first(group: list[int]) -> float:
        width = gap * (len(group) - 1)
        return min(max(sum(positions[index] for index in group) / len(group) - width / 2, left), right - width)

    groups: list[list[int]] = []
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        groups.append([index])
        while len(groups) > 1 and first(groups[-1]) - first(groups[-2]) < gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = {index: first(group) + rank * gap for group in groups for rank, index in enumerate(group)}
    return [placed[index] for index in range(len(positions))]


def place_label(text: str, x: float, y: float, taken: list[Box]) -> Markup:
    """The text beside (x, y) where it covers nothing of `taken`, which then holds its box as well."""
    width = 7.8 * len(text)
    for shift in (0, -13, 13, -26, 26, -39, 39, -52, 52, -65, 65):
        sides = [(x + 17, "start"), (x - 17 - width, "end")]
        for start, anchor in [(x - width / 2, "middle"), *sides] if shift else sides:
            box = (start, y + shift - 6, start + width, y + shift + 7)
            free = all(box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1] for other in taken)
            if free and box[0] >= LEFT and box[2] <= RIGHT + 6 and box[1] >= TOP - 8 and box[3] <= BOTTOM:
                taken.append(box)
                at = {"start": start, "end": start + width, "middle": start + width / 2}[anchor]
                return element("text", text, x=f"{at:.1f}", y=f"{y + shift + 4:.1f}", text_anchor=anchor, class_="label")
    at, anchor = (x + 17, "start") if x + 17 + width <= RIGHT + 6 else (x - 17, "end")
    return element("text", text, x=f"{at:.1f}", y=f"{y + 4:.1f}", text_anchor=anchor, class_="label")


def frame(identity: str, title: str, description: str, *children: object) -> Markup:
    names = (element("title", title, id=f"{identity}-title"), element("desc", description, id=f"{identity}-desc"))
    labelled = f"{identity}-title {identity}-desc"
    return element("svg", *names, *children, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_labelledby=labelled, id=identity)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=class_)


def below(text: str, x: float) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=BOTTOM + 18, text_anchor="middle", class_="tick")


def axis_title(text: str) -> Markup:
    return element("text", text, x=(LEFT + RIGHT) / 2, y=BOTTOM + 40, text_anchor="middle", class_="axis")


def arm_class(results: Mapping[str, Any], name: str) -> str:
    """The colour of an arm, the same in every picture; the arm without a block is grey."""
    if name == "none":
        return "arm-none"
    names = [results["primary"][0], *(arm["name"] for arm in results["arms"] if arm["name"] not in ("none", results["primary"][0]))]
    return f"arm-{names.index(name) % COLOURS}"


def cost_plot(results: Mapping[str, Any], words: str, costs: Mapping[str, float | None]) -> Markup | None:
    """Top-1 against what an arm costs: a dot for each finished run, a bar for the mean.

    Args:
        results: What the study wrote.
        words: What the cost is called.
        costs: Arm -> its cost; an arm without one is not drawn.

    Returns:
        The picture; None if no arm has both a cost and a finished run.
    """
    arms = [arm for arm in results["arms"] if costs.get(arm["name"]) is not None and arm["top1"]["mean"] is not None]
    if not arms:
        return None
    spent = [float(costs[arm["name"]] or 0) for arm in arms]
    done = {arm["name"]: [run for run in arm["runs"] if run["status"] == "done"] for arm in arms}
    values = [100 * run["top1"] for runs in done.values() for run in runs]
    margin = 0.12 * (max(values) - min(values)) or 0.5
    heights = linear_ticks(max(0, min(values) - margin), min(100, max(values) + margin))
    place_y = between(heights[0], heights[-1], BOTTOM, TOP)
    place_x, ticks, logarithmic = cost_axis(spent)
    step = min(5.0, 20 / max(1, len(results["seeds"])))
    columns = spread([place_x(cost) for cost in spent], gap=30)

    grid = [line(LEFT, place_y(tick), RIGHT, place_y(tick), "grid") for tick in heights]
    marks = [
        element("text", text, x=LEFT - 8, y=f"{place_y(tick) + 4:.1f}", text_anchor="end", class_="tick")
        for tick, text in zip(heights, tick_words(heights), strict=True)
    ]
    feet = [below(short(tick), place_x(tick)) for tick in ticks]
    body: list[Markup] = []
    taken: list[Box] = []
    for arm, x in zip(arms, columns, strict=True):
        middle = place_y(100 * arm["top1"]["mean"])
        dots = []
        for index, run in enumerate(done[arm["name"]]):
            cx, cy = x + step * (index - (len(done[arm["name"]]) - 1) / 2), place_y(100 * run["top1"])
            tip = element("title", f"{arm['name']}, seed {run['seed']}: {percent(run['top1'])} %")
            dots.append(element("circle", tip, cx=f"{cx:.1f}", cy=f"{cy:.2f}", r=3.4, class_="run"))
            taken.append((cx - 4, cy - 4, cx + 4, cy + 4))
        taken.append((x - 12, middle - 3, x + 12, middle + 3))
        body.append(element("g", line(x - 11, middle, x + 11, middle, "mean"), *dots, class_=arm_class(results, arm["name"])))
    for arm, x in zip(arms, columns, strict=True):
        label = place_label(arm["name"], x, place_y(100 * arm["top1"]["mean"]), taken)
        body.append(element("g", label, class_=arm_class(results, arm["name"])))
    description = "; ".join(
        f"{arm['name']}: {words} {cost:,g}, top-1 {percent(arm['top1']['mean'])} %" for arm, cost in zip(arms, spent, strict=True)
    )
    name = element("text", "top-1, %", x=4, y=TOP - 16, class_="axis")
    title = axis_title(words + (", logarithmic" if logarithmic else ""))
    return frame(f"plot-{words.replace(' ', '-')}", f"Top-1 against {words}", description, grid, marks, feet, name, title, body)


def difference_plot(results: Mapping[str, Any], reference: str) -> Markup | None:
    """Every arm's difference to `reference` with its 95 % interval; None if there is none to show."""
    shown = [(arm["name"], arm["difference"][reference]) for arm in results["arms"] if arm["difference"].get(reference)]
    if not shown:
        return None
    ends = [100 * (record[key] if record[key] is not None else record["mean"]) for _, record in shown for key in ("low", "high")]
    ticks = linear_ticks(min(0, *ends), max(0, *ends), most=5)
    left = min(160, 7.5 * max(len(name) for name, _ in shown)) + 16
    place = between(ticks[0], ticks[-1], left, RIGHT - 12)
    row = (BOTTOM - TOP) / len(shown)
    parts = [line(place(tick), TOP, place(tick), BOTTOM, "zero" if abs(tick) < 1e-9 else "grid") for tick in ticks]
    parts += [below(text, place(tick)) for tick, text in zip(ticks, tick_words(ticks, signed=True), strict=True)]
    sentences = []
    for index, (name, record) in enumerate(shown):
        y, x = TOP + row * (index + 0.5), place(100 * record["mean"])
        words = f"{name}: {points(record['mean'])} points, n = {record['n']}"
        interval = None
        if record["low"] is not None:
            interval = line(place(100 * record["low"]), y, place(100 * record["high"]), y, "interval")
            words += f", 95 % interval {points(record['low'])} to {points(record['high'])}"
        dot = element("circle", element("title", words), cx=f"{x:.1f}", cy=f"{y:.1f}", r=5, class_="difference")
        label = element("text", name, x=4, y=f"{y + 4:.1f}", class_="label")
        parts.append(element("g", label, interval, dot, class_=arm_class(results, name)))
        sentences.append(words)
    title = axis_title(f"top-1 minus {reference}, points")
    return frame("plot-difference", f"Difference to {reference}", "; ".join(sentences), parts, title)
