"""Pictures with one row per name: differences with their intervals, and every seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cpsam.report.plots import arm_class, measured, run_words
from cpsam.report.records import Difference
from cpsam.report.results import Results
from cpsam.report.svg import (
    BOTTOM,
    RIGHT,
    TOP,
    Scale,
    axis_title,
    below,
    between,
    dot,
    element,
    frame,
    group,
    identity_of,
    line,
    linear_ticks,
    path,
    text,
    tick_words,
)
from cpsam.report.values import MINUS, percent, points
from cpsam.statistics import PairedDifference

Row = tuple[str, str, Difference | PairedDifference]  # the name, its class, what is drawn


@dataclass(frozen=True)
class Rows:
    """Where the rows of a picture lie.

    Attributes:
        place: The horizontal scale.
        heights: The middle of each row.
        bottom: The lower end of the last one.
        grid: Lines at the ticks, and their numbers.
    """

    place: Scale
    heights: list[float]
    bottom: float
    grid: list[Markup]


def lay_rows(names: Sequence[str], low: float, high: float, signed: bool = False) -> Rows:
    """Returns rows for these names beside values from low to high."""
    bottom = max(BOTTOM, TOP + 26 * len(names))
    ticks = linear_ticks(low, high, most=5)
    # on a phone, letters are larger relative to the picture
    left = min(240, 7.4 * max(map(len, names))) + 12
    place, row = between(ticks[0], ticks[-1], left, RIGHT - 12), (bottom - TOP) / len(names)
    grid = []
    for tick, words in zip(ticks, tick_words(ticks, signed), strict=True):
        x, kind = place(tick), "zero" if abs(tick) < 1e-9 else "grid"
        grid += [line(x, TOP, x, bottom, kind), below(words, x, bottom)]
    return Rows(place, [TOP + row * (index + 0.5) for index in range(len(names))], bottom, grid)


def difference_plot(results: Results, reference: str, setting: str | None = None) -> Markup | None:
    """Draws the difference of every arm to `reference` with its 95 % interval.

    Returns None if there is no difference to show.
    """
    rows: list[Row] = []
    for arm in results.arms_in(setting):
        if difference := results.differences_of(arm).get(reference):
            rows.append((arm.arm, arm_class(results, arm.arm), difference))
    title, axis = f"Difference to {reference}", f"top-1 minus {reference}, points"
    return forest(identity_of("difference", setting), title, rows, axis)


def contrast_plot(results: Results) -> Markup | None:
    """Draws the questions of a study with their 95 % intervals, the primary one first.

    Returns None if no question has an answer yet.
    """
    firsts = {results.short_name(contrast.arm) for contrast in results.contrasts}
    rows: list[Row] = []
    for contrast in results.contrasts:
        where = f" ({contrast.setting})" if results.has_settings else ""
        arm = f"{results.short_name(contrast.arm)} " if len(firsts) > 1 else ""
        name = f"{arm}{MINUS} {results.short_name(contrast.reference)}{where}"
        if contrast.mean is not None:
            rows.append((name, "arm-0" if contrast.primary else "arm-none", contrast))
    title = (
        "Differences of top-1"
        if len(firsts) > 1
        else f"Top-1 of {' '.join(firsts)} minus that of others"
    )
    return forest("plot-contrasts", title, rows, "difference of top-1, points")


def forest(identity: str, title: str, rows: Sequence[Row], axis: str) -> Markup | None:
    """Draws a dot with its interval per row, and a line at zero; None without a row."""
    if not rows:
        return None
    ends = [end for _, _, found in rows for end in (0, found.low, found.mean, found.high)]
    percents = [100 * end for end in ends if end is not None]
    layout = lay_rows([name for name, _, _ in rows], min(percents), max(percents), signed=True)
    parts, sentences = layout.grid, []
    for (name, class_, difference), y in zip(rows, layout.heights, strict=True):
        x = layout.place(100 * (difference.mean or 0))
        words = f"{name}: {points(difference.mean or 0)} points, n = {difference.n}"
        interval = None
        if difference.low is not None and difference.high is not None:
            low, high = layout.place(100 * difference.low), layout.place(100 * difference.high)
            shape = f"M{low:.1f} {y - 5:.1f} v10 m0 -5 H{high:.1f} m0 -5 v10"
            interval = element("path", d=shape, class_="interval")
            words += f", 95 % interval {points(difference.low)} to {points(difference.high)}"
        label = text(name, 4, y + 4, "label")
        parts.append(group(class_, label, interval, dot(x, y, 3.6, "difference", words)))
        sentences.append(words)
    foot = axis_title(axis, layout.bottom)
    return frame(identity, title, "; ".join(sentences), *parts, foot, height=layout.bottom + 50)


def seed_plot(results: Results, setting: str | None = None) -> Markup | None:
    """Draws every finished run: a row per arm, a dot per seed, and a bar at the mean.

    A thin line joins the runs of one seed. Returns None if no run has finished.
    """
    arms = measured(results, setting)
    if not arms:
        return None
    values = [100 * top1 for arm in arms for top1 in arm.top1_by_seed.values()]
    margin = 0.05 * (max(values) - min(values)) or 0.5
    low, high = max(0, min(values) - margin), min(100, max(values) + margin)
    layout = lay_rows([arm.arm for arm in arms], low, high)

    def place(fraction: float | None) -> float:
        return layout.place(100 * (fraction or 0))

    parts, sentences = layout.grid, []
    tops = [arm.top1_by_seed for arm in arms]
    for seed in results.seeds:
        rows = zip(tops, layout.heights, strict=True)
        if thread := [(place(top1[seed]), y) for top1, y in rows if seed in top1]:
            parts.append(path(thread, "thread"))
    for arm, top1, y in zip(arms, tops, layout.heights, strict=True):
        dots = [
            dot(place(value), y, 3.6, "seed", run_words(arm, seed, value))
            for seed, value in top1.items()
        ]
        middle, label = place(arm.top1.mean), text(arm.arm, 4, y + 4, "label")
        mean = line(middle, y - 8, middle, y + 8, "mean")
        parts.append(group(arm_class(results, arm.arm), label, *dots, mean))
        seeds = [f"seed {seed} {percent(value)} %" for seed, value in top1.items()]
        sentences.append(f"{arm.arm}: {', '.join(seeds)}")
    return frame(
        identity_of("seeds", setting),
        "Top-1 of every seed",
        "; ".join(sentences),
        *parts,
        axis_title("top-1, %", layout.bottom),
        height=layout.bottom + 50,
    )
