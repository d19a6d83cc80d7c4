"""The pictures of a report as SVG: accuracy against cost, over epochs and seeds, and differences
with their intervals.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from cpsam.report.markup import Markup, element
from cpsam.report.svg import (
    BOTTOM,
    COLOURS,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Box,
    axis_title,
    below,
    between,
    cost_axis,
    cut,
    frame,
    front,
    height_axis,
    identity_of,
    line,
    linear_ticks,
    path,
    place_label,
    short,
    spread,
    tick_words,
)
from cpsam.report.table import (
    MINUS,
    arms_in,
    bare,
    differences_of,
    percent,
    points,
    settings_of,
    short_name,
)


def arm_class(results: Mapping[str, Any], name: str) -> str:
    """The colour of an arm, the same in every picture and setting; the arm without a block is grey,
    and the primary one has its own.
    """
    name, first = bare(results, name), bare(results, results["primary"][0])
    if name in ("none", first):
        return "arm-none" if name == "none" else "arm-0"
    names = list(
        dict.fromkeys(
            short_name(arm) for arm in results["arms"] if short_name(arm) not in ("none", first)
        )
    )
    return f"arm-{names.index(name) % (COLOURS - 1) + 1}"


def measured(results: Mapping[str, Any], setting: str | None) -> list[Mapping[str, Any]]:
    """The arms of a setting that have a finished run."""
    return [arm for arm in arms_in(results, setting) if arm["top1"]["mean"] is not None]


def cost_plot(
    results: Mapping[str, Any],
    words: str,
    costs: Mapping[str, float | None],
    setting: str | None = None,
) -> Markup | None:
    """Top-1 against what an arm costs: a dot for each finished run, a bar for the mean, and a line
    through the Pareto front of the means.

    Args:
        results: What the study wrote.
        words: What the cost is called.
        costs: Arm -> its cost; an arm without one is not drawn.
        setting: Only the arms of this one.

    Returns:
        The picture; None if no arm has both a cost and a finished run.
    """
    arms = [arm for arm in measured(results, setting) if costs.get(arm["name"]) is not None]
    if not arms:
        return None
    spent = [float(costs[arm["name"]] or 0) for arm in arms]
    done = [[run for run in arm["runs"] if run["status"] == "done"] for arm in arms]
    values = [100 * run["top1"] for runs in done for run in runs]
    place_y, axis = height_axis(values, 0.12 * (max(values) - min(values)) or 0.5, ceiling=100)
    place_x, ticks, logarithmic = cost_axis(spent)
    step = min(5.0, 20 / max(1, len(results["seeds"])))
    columns = spread([place_x(cost) for cost in spent], gap=30 if len(arms) <= 6 else 24)
    middles = [place_y(100 * arm["top1"]["mean"]) for arm in arms]
    chosen = front([(cost, arm["top1"]["mean"]) for cost, arm in zip(spent, arms, strict=True)])

    body: list[Markup] = (
        [path([(columns[index], middles[index]) for index in chosen], "front")]
        if len(chosen) > 1
        else []
    )
    taken: list[Box] = []
    for arm, runs, x, middle in zip(arms, done, columns, middles, strict=True):
        dots = []
        for index, run in enumerate(runs):
            cx, cy = x + step * (index - (len(runs) - 1) / 2), place_y(100 * run["top1"])
            tip = element(
                "title", f"{short_name(arm)}, seed {run['seed']}: {percent(run['top1'])} %"
            )
            dots.append(element("circle", tip, cx=f"{cx:.1f}", cy=f"{cy:.2f}", r=3.4, class_="run"))
            taken.append((cx - 4, cy - 4, cx + 4, cy + 4))
        taken.append((x - 12, middle - 3, x + 12, middle + 3))
        body.append(
            element(
                "g",
                line(x - 11, middle, x + 11, middle, "mean"),
                *dots,
                class_=arm_class(results, arm["name"]),
            )
        )
    for arm, x, middle in zip(arms, columns, middles, strict=True):
        body.append(
            element(
                "g",
                place_label(short_name(arm), x, middle, taken),
                class_=arm_class(results, arm["name"]),
            )
        )
    description = "; ".join(
        f"{short_name(arm)}: {words} {cost:,g}, top-1 {percent(arm['top1']['mean'])} %"
        for arm, cost in zip(arms, spent, strict=True)
    )
    if len(chosen) > 1:
        description += (
            f". Not beaten at less cost: {', '.join(short_name(arms[index]) for index in chosen)}"
        )
    name = element("text", "top-1, %", x=4, y=TOP - 16, class_="axis")
    title = axis_title(words + (", logarithmic" if logarithmic else ""))
    feet = [below(short(tick), place_x(tick)) for tick in ticks]
    return frame(
        identity_of(words, setting),
        f"Top-1 against {words}",
        description,
        axis,
        feet,
        name,
        title,
        body,
    )


def difference_plot(
    results: Mapping[str, Any], reference: str, setting: str | None = None
) -> Markup | None:
    """Every arm's difference to `reference` with its 95 % interval; None if there is none
    to show.
    """
    found = [
        (arm, differences_of(results, arm).get(reference)) for arm in arms_in(results, setting)
    ]
    shown = [
        (short_name(arm), arm_class(results, arm["name"]), difference)
        for arm, difference in found
        if difference
    ]
    title = f"Difference to {reference}"
    return forest(
        identity_of("difference", setting), title, shown, f"top-1 minus {reference}, points"
    )


def contrast_plot(results: Mapping[str, Any]) -> Markup | None:
    """The questions of a study with their 95 % intervals, the primary one first; None if none has
    an answer yet.
    """
    many = len(settings_of(results)) > 1
    contrasts = results.get("contrasts", [])
    firsts = {bare(results, contrast["arm"]) for contrast in contrasts}
    shown = []
    for contrast in contrasts:
        where = f" ({contrast['setting']})" if many else ""
        one = f"{bare(results, contrast['arm'])} " if len(firsts) > 1 else ""
        words = f"{one}{MINUS} {bare(results, contrast['reference'])}{where}"
        if contrast["mean"] is not None:
            shown.append((words, "arm-0" if contrast["primary"] else "arm-none", contrast))
    title = (
        "Differences of top-1"
        if len(firsts) > 1
        else f"Top-1 of {' '.join(firsts)} minus that of others"
    )
    return forest("plot-contrasts", title, shown, "difference of top-1, points")


def forest(
    identity: str, title: str, shown: Sequence[tuple[str, str, Mapping[str, Any]]], axis: str
) -> Markup | None:
    """Rows of a name, a class and a difference: a dot with its interval each, and a line at
    zero.
    """
    if not shown:
        return None
    bottom = max(BOTTOM, TOP + 26 * len(shown))
    ends = [
        100 * (record[key] if record[key] is not None else record["mean"])
        for _, _, record in shown
        for key in ("low", "high")
    ]
    ticks = linear_ticks(min(0, *ends), max(0, *ends), most=5)
    # letters of a phone, which are larger beside the picture
    left = min(240, 7.4 * max(len(name) for name, _, _ in shown)) + 12
    place = between(ticks[0], ticks[-1], left, RIGHT - 12)
    row = (bottom - TOP) / len(shown)
    parts = [
        line(place(tick), TOP, place(tick), bottom, "zero" if abs(tick) < 1e-9 else "grid")
        for tick in ticks
    ]
    parts += [
        below(text, place(tick), bottom)
        for tick, text in zip(ticks, tick_words(ticks, signed=True), strict=True)
    ]
    sentences = []
    for index, (name, class_, record) in enumerate(shown):
        y, x = TOP + row * (index + 0.5), place(100 * record["mean"])
        words = f"{name}: {points(record['mean'])} points, n = {record['n']}"
        interval = None
        if record["low"] is not None:
            low, high = (place(100 * record[key]) for key in ("low", "high"))
            interval = element(
                "path",
                d=f"M{low:.1f} {y - 5:.1f} v10 m0 -5 H{high:.1f} m0 -5 v10",
                class_="interval",
            )
            words += f", 95 % interval {points(record['low'])} to {points(record['high'])}"
        dot = element(
            "circle",
            element("title", words),
            cx=f"{x:.1f}",
            cy=f"{y:.1f}",
            r=3.6,
            class_="difference",
        )
        label = element("text", name, x=4, y=f"{y + 4:.1f}", class_="label")
        parts.append(element("g", label, interval, dot, class_=class_))
        sentences.append(words)
    return frame(
        identity, title, "; ".join(sentences), parts, axis_title(axis, bottom), height=bottom + 50
    )


def seed_plot(results: Mapping[str, Any], setting: str | None = None) -> Markup | None:
    """Every finished run: a row an arm, a dot a seed, thin lines between the runs of one seed, a
    bar at the mean.
    """
    arms = measured(results, setting)
    if not arms:
        return None
    bottom = max(BOTTOM, TOP + 26 * len(arms))
    values = [100 * run["top1"] for arm in arms for run in arm["runs"] if run["status"] == "done"]
    margin = 0.05 * (max(values) - min(values)) or 0.5
    ticks = linear_ticks(max(0, min(values) - margin), min(100, max(values) + margin), most=5)
    left = min(190, 7.2 * max(len(short_name(arm)) for arm in arms)) + 16
    place, row = between(ticks[0], ticks[-1], left, RIGHT - 12), (bottom - TOP) / len(arms)
    heights = [TOP + row * (index + 0.5) for index in range(len(arms))]
    parts = [line(place(tick), TOP, place(tick), bottom, "grid") for tick in ticks]
    parts += [
        below(text, place(tick), bottom)
        for tick, text in zip(ticks, tick_words(ticks), strict=True)
    ]
    done = [{run["seed"]: run for run in arm["runs"] if run["status"] == "done"} for arm in arms]
    for seed in results["seeds"]:
        places = [
            (place(100 * runs[seed]["top1"]), y)
            for runs, y in zip(done, heights, strict=True)
            if seed in runs
        ]
        parts.append(path(places, "thread"))
    sentences = []
    for arm, runs, y in zip(arms, done, heights, strict=True):
        dots = []
        for seed, run in runs.items():
            tip = element("title", f"{short_name(arm)}, seed {seed}: {percent(run['top1'])} %")
            dots.append(
                element(
                    "circle",
                    tip,
                    cx=f"{place(100 * run['top1']):.1f}",
                    cy=f"{y:.1f}",
                    r=3.6,
                    class_="seed",
                )
            )
        middle = place(100 * arm["top1"]["mean"])
        label = element("text", short_name(arm), x=4, y=f"{y + 4:.1f}", class_="label")
        mean = line(middle, y - 8, middle, y + 8, "mean")
        parts.append(element("g", label, *dots, mean, class_=arm_class(results, arm["name"])))
        sentences.append(
            f"{short_name(arm)}: "
            + ", ".join(f"seed {seed} {percent(run['top1'])} %" for seed, run in runs.items())
        )
    identity = identity_of("seeds", setting)
    return frame(
        identity,
        "Top-1 of every seed",
        "; ".join(sentences),
        parts,
        axis_title("top-1, %", bottom),
        height=bottom + 50,
    )


# What its axis and its picture are called, its unit, and the most that it can be.
CURVES = {
    "top1": ("top-1, %", "Top-1 after each epoch", 100, 100),
    "train_loss": ("train loss", "Train loss of each epoch", 1, inf),
}


def curve_plot(
    results: Mapping[str, Any], setting: str | None = None, key: str = "top1"
) -> Markup | None:
    """A value over the epochs: its mean over the finished runs of an arm in a band from lowest to
    highest; runs that broke off dashed.

    Args:
        results: What the study wrote.
        setting: Only the arms of this one.
        key: Of a curve, in ``CURVES``.

    Returns:
        The picture; None if no run has two epochs.
    """
    axis_name, title, scale, ceiling = CURVES[key]
    arms = arms_in(results, setting)
    runs = [
        (arm["name"], run["status"], (run.get("curve") or {}).get(key) or ())
        for arm in arms
        for run in arm["runs"]
    ]
    runs = [(name, status, [scale * value for value in curve]) for name, status, curve in runs]
    finished: dict[str, list[list[float]]] = {}
    for name, status, curve in runs:
        if status == "done" and len(curve) > 1:
            finished.setdefault(name, []).append(curve)
    if not finished:
        return None
    epochs = max(len(curve) for curves in finished.values() for curve in curves)
    # What happens in the first half is the schedule's, and would press the end, where arms differ,
    # into a line.
    late = [
        value
        for curves in finished.values()
        for curve in curves
        for value in curve[len(curve) // 2 :]
    ]
    place_y, axis = height_axis(late, 0.04 * (max(late) - min(late)) or 0.005 * scale, ceiling)
    place_x = between(1, epochs, LEFT, RIGHT - 106)
    leading = {bare(results, name) for name in results["primary"]}
    body, ends, sentences = [], [], []
    for arm in arms:
        if arm["name"] not in finished:
            continue
        curves, class_, name = (
            finished[arm["name"]],
            arm_class(results, arm["name"]),
            short_name(arm),
        )
        columns = list(zip(*curves, strict=False))
        places = [place_x(index + 1) for index in range(len(columns))]
        lows, highs = ([place_y(pick(column)) for column in columns] for pick in (min, max))
        means = [sum(column) / len(column) for column in columns]
        band = path(
            [*zip(places, lows, strict=True), *reversed(list(zip(places, highs, strict=True)))],
            "band",
            close=True,
        )
        mean = path(
            [(x, place_y(value)) for x, value in zip(places, means, strict=True)],
            "curve leading" if name in leading else "curve",
        )
        sentences.append(f"{name}: {means[-1]:.2f} after epoch {len(columns)}")
        tip = element("title", sentences[-1])
        body.append(element("g", band if len(curves) > 1 else None, mean, tip, class_=class_))
        ends.append((name, class_, places[-1], place_y(means[-1])))
    for name, status, curve in runs:
        if status != "done" and curve:
            places = [(place_x(index + 1), place_y(value)) for index, value in enumerate(curve)]
            body.append(element("g", path(places, "curve broken"), class_=arm_class(results, name)))
    labels = []
    for (name, class_, x, end), y in zip(
        ends, spread([end for *_, end in ends], 12.5, TOP, BOTTOM), strict=True
    ):
        label = element(
            "text", cut(name, 14), x=f"{RIGHT - 92:.1f}", y=f"{y + 4:.1f}", class_="label"
        )
        labels.append(element("g", line(x + 2, end, RIGHT - 95, y, "leader"), label, class_=class_))
    ticks = [
        tick
        for tick in linear_ticks(1, epochs, most=5)
        if 1 <= tick <= epochs and tick == round(tick)
    ] or [1, epochs]
    feet = [below(f"{tick:g}", place_x(tick)) for tick in ticks]
    name = element("text", axis_name, x=4, y=TOP - 16, class_="axis")
    # An svg in an svg shows nothing outside of itself: what is below the axis is cut off.
    size = {"x": LEFT, "y": TOP - 4, "width": WIDTH - LEFT, "height": BOTTOM - TOP + 4}
    drawn = element(
        "svg",
        body,
        viewBox=f"{LEFT} {TOP - 4} {WIDTH - LEFT} {BOTTOM - TOP + 4}",
        class_="inside",
        **size,
    )
    identity = identity_of("curves" if key == "top1" else f"curves {key}", setting)
    return frame(
        identity, title, "; ".join(sentences), axis, feet, name, axis_title("epoch"), drawn, labels
    )
