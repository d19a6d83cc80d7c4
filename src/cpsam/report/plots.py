"""Pictures with top-1 on the vertical axis: against a cost, and over the epochs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from markupsafe import Markup

from cpsam.report.records import ArmResult, RunRecord
from cpsam.report.results import Results
from cpsam.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Box,
    Point,
    Scale,
    axis_name,
    axis_title,
    below,
    between,
    cost_axis,
    cut,
    dot,
    element,
    frame,
    group,
    height_axis,
    identity_of,
    line,
    linear_ticks,
    path,
    place_label,
    short,
    spread,
    text,
)
from cpsam.report.values import percent

COLOURS = 8  # classes arm-0 .. arm-7 in the style sheet


def arm_class(results: Results, arm: str) -> str:
    """Returns the class that colours an arm, the same in every picture and setting.

    Args:
        results: Of a study.
        arm: A name within a setting. The arm without a block is grey, and the primary one has its
            own colour.
    """
    first = results.short_name(results.primary[0])
    if arm in ("none", first):
        return "arm-none" if arm == "none" else "arm-0"
    others = dict.fromkeys(each.arm for each in results.arms if each.arm not in ("none", first))
    return f"arm-{list(others).index(arm) % (COLOURS - 1) + 1}"


def measured(results: Results, setting: str | None) -> list[ArmResult]:
    """Returns the arms of a setting that have a finished run."""
    return [arm for arm in results.arms_in(setting) if arm.top1_by_seed]


def run_words(arm: ArmResult, seed: int, top1: float) -> str:
    return f"{arm.arm}, seed {seed}: {percent(top1)} %"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the Pareto front of (cost, value), the cheapest first.

    No other point is better at the same or a lower cost.

    Example:
        >>> front([(3, 0.7), (1, 0.5), (2, 0.4), (2, 0.6), (3, 0.6)])
        [1, 3, 0]
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    chosen: list[int] = []
    for index in order:
        if not chosen or points[index][1] > points[chosen[-1]][1]:
            chosen.append(index)
    return chosen


def cost_plot(
    results: Results, words: str, costs: Mapping[str, float | None], setting: str | None = None
) -> Markup | None:
    """Draws top-1 against what an arm costs.

    A dot is a finished run, a bar the mean; a line joins the Pareto front of the means.

    Args:
        results: Of a study.
        words: What the cost is called.
        costs: Name of an arm -> its cost; an arm without one is not drawn.
        setting: Only the arms of this one.

    Returns:
        The picture; None if no arm has both a cost and a finished run.
    """
    arms = [arm for arm in measured(results, setting) if costs.get(arm.name) is not None]
    if not arms:
        return None
    spent = [float(costs[arm.name] or 0) for arm in arms]
    means = [100 * (arm.top1.mean or 0) for arm in arms]
    values = [100 * top1 for arm in arms for top1 in arm.top1_by_seed.values()]
    height, grid = height_axis(values, 0.12 * (max(values) - min(values)) or 0.5, ceiling=100)
    place, ticks, logarithmic = cost_axis(spent)
    columns = spread([place(cost) for cost in spent], gap=30 if len(arms) <= 6 else 24)
    chosen = front(list(zip(spent, means, strict=True)))

    body = []
    if len(chosen) > 1:
        body.append(path([(columns[each], height(means[each])) for each in chosen], "front"))
    taken: list[Box] = []
    step = min(5.0, 20 / max(1, len(results.seeds)))
    for arm, x, mean in zip(arms, columns, means, strict=True):
        dots = run_dots(arm, x, mean, step, height, taken)
        body.append(group(arm_class(results, arm.arm), *dots))
    for arm, x, mean in zip(arms, columns, means, strict=True):
        label = place_label(arm.arm, x, height(mean), taken)
        body.append(group(arm_class(results, arm.arm), label))
    description = "; ".join(
        f"{arm.arm}: {words} {cost:,g}, top-1 {percent(arm.top1.mean)} %"
        for arm, cost in zip(arms, spent, strict=True)
    )
    if len(chosen) > 1:
        names = ", ".join(arms[each].arm for each in chosen)
        description += f". Not beaten at the same or a lower cost: {names}"
    return frame(
        identity_of(words, setting),
        f"Top-1 against {words}",
        description,
        *grid,
        *(below(short(tick), place(tick)) for tick in ticks),
        axis_name("top-1, %"),
        axis_title(words + (", logarithmic" if logarithmic else "")),
        *body,
    )


def run_dots(
    arm: ArmResult, x: float, mean: float, step: float, height: Scale, taken: list[Box]
) -> list[Markup]:
    """Returns the bar of the mean and a dot for each finished run; adds their boxes to `taken`."""
    dots = [line(x - 11, height(mean), x + 11, height(mean), "mean")]
    top1 = arm.top1_by_seed
    for index, (seed, value) in enumerate(top1.items()):
        cx, cy = x + step * (index - (len(top1) - 1) / 2), height(100 * value)
        dots.append(dot(cx, cy, 3.4, "run", run_words(arm, seed, value)))
        taken.append((cx - 4, cy - 4, cx + 4, cy + 4))
    taken.append((x - 12, height(mean) - 3, x + 12, height(mean) + 3))
    return dots


@dataclass(frozen=True)
class CurveKind:
    """A value over the epochs.

    Attributes:
        key: The field of a curve.
        axis: What its axis is called.
        title: What its picture is called.
        unit: What the axis counts in: 100 for percent.
        ceiling: The most that the value can be, in this unit.
    """

    key: str
    axis: str
    title: str
    unit: float
    ceiling: float

    def values(self, run: RunRecord) -> list[float]:
        return [self.unit * value for value in getattr(run.curve, self.key)]

    def finished(self, arm: ArmResult) -> list[list[float]]:
        """Returns the curves of the finished runs that have two epochs."""
        return [curve for run in arm.finished if len(curve := self.values(run)) > 1]


TOP1_CURVE = CurveKind("top1", "top-1, %", "Top-1 after each epoch", 100, 100)
LOSS_CURVE = CurveKind("train_loss", "train loss", "Train loss of each epoch", 1, inf)


def curve_plot(
    results: Results, setting: str | None = None, kind: CurveKind = TOP1_CURVE
) -> Markup | None:
    """Draws a value over the epochs: the mean of an arm, in a band from the lowest to the highest.

    Runs that broke off are dashed.

    Returns:
        The picture; None if no finished run has two epochs.
    """
    arms = results.arms_in(setting)
    curves = {arm.name: kind.finished(arm) for arm in arms}
    every = [curve for found in curves.values() for curve in found]
    if not every:
        return None
    # The schedule shapes the first half. If the axis covered it, the end would be a flat line, and
    # the end is where arms differ.
    late = [value for curve in every for value in curve[len(curve) // 2 :]]
    margin = 0.04 * (max(late) - min(late)) or 0.005 * kind.unit
    height, grid = height_axis(late, margin, kind.ceiling)
    epochs = max(map(len, every))
    place = between(1, epochs, LEFT, RIGHT - 106)

    def points(values: Iterable[float]) -> list[Point]:
        return [(place(index + 1), height(value)) for index, value in enumerate(values)]

    leading = {results.short_name(name) for name in results.primary}
    means, broken, ends, sentences = [], [], [], []
    for arm in arms:
        class_ = arm_class(results, arm.arm)
        for curve in [kind.values(run) for run in arm.runs if not run.done]:
            if curve:
                broken.append(group(class_, path(points(curve), "curve broken")))
        if found := curves[arm.name]:
            columns = list(zip(*found, strict=False))
            mean = [sum(column) / len(column) for column in columns]
            words = f"{arm.arm}: {mean[-1]:.2f} after epoch {len(mean)}"
            outline = [*points(map(min, columns)), *reversed(points(map(max, columns)))]
            band = path(outline, "band", close=True) if len(found) > 1 else None
            line_class = "curve leading" if arm.arm in leading else "curve"
            drawn = path(points(mean), line_class)
            means.append(group(class_, band, drawn, element("title", words)))
            ends.append((arm.arm, class_, points(mean)[-1]))
            sentences.append(words)
    return frame(
        identity_of("curves" if kind is TOP1_CURVE else f"curves {kind.key}", setting),
        kind.title,
        "; ".join(sentences),
        *grid,
        *(below(f"{tick:g}", place(tick)) for tick in epoch_ticks(epochs)),
        axis_name(kind.axis),
        axis_title("epoch"),
        inside_frame(*means, *broken),
        *end_labels(ends),
    )


def end_labels(ends: Sequence[tuple[str, str, Point]]) -> list[Markup]:
    """Returns a label beside the end of each curve: its name, its class, where it ends."""
    labels = []
    heights = spread([y for _, _, (_, y) in ends], 12.5, TOP, BOTTOM)
    for (name, class_, (x, end)), y in zip(ends, heights, strict=True):
        leader = line(x + 2, end, RIGHT - 95, y, "leader")
        label = text(cut(name, 14), RIGHT - 92, y + 4, "label")
        labels.append(group(class_, leader, label))
    return labels


def epoch_ticks(epochs: int) -> list[float]:
    ticks = linear_ticks(1, epochs, most=5)
    return [tick for tick in ticks if 1 <= tick <= epochs and tick == round(tick)] or [1, epochs]


def inside_frame(*body: Markup) -> Markup:
    """Returns a picture in the picture, which cuts off what lies below the axis."""
    x, y, width, height = LEFT, TOP - 4, WIDTH - LEFT, BOTTOM - TOP + 4
    box = {"x": x, "y": y, "width": width, "height": height, "viewBox": f"{x} {y} {width} {height}"}
    return element("svg", *body, class_="inside", **box)
