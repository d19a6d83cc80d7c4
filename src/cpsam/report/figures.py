"""The pictures of a report: which there are, and what their captions say."""

from dataclasses import dataclass

from markupsafe import Markup

from cpsam.report.plots import LOSS_CURVE, TOP1_CURVE, cost_plot, curve_plot, measured
from cpsam.report.results import Results
from cpsam.report.row_plots import contrast_plot, difference_plot, seed_plot

DIFFERENCE = "Mean and 95 % interval, paired by seed."
COST = (
    "A dot is a run, a bar the mean of an arm. The dashed line joins the arms that no arm beats at"
    " the same or a lower cost. Columns that would cover each other are moved apart."
)
SEEDS = "A dot is a run, a bar the mean of an arm; a thin line joins the runs of one seed."
CURVE = (
    "The line is the mean over the seeds, in a band from the lowest to the highest. The vertical"
    " axis fits the second half of the epochs."
)
BROKEN = " A dashed line is a run that broke off."
CONTRASTS = "Mean and 95 % interval, paired by seed, not adjusted for the number of questions."


@dataclass(frozen=True)
class Figure:
    """A picture with a title and a sentence on how to read it."""

    title: str
    caption: str
    picture: Markup


def contrasts_figure(results: Results) -> Figure | None:
    picture = contrast_plot(results)
    return Figure("Differences", CONTRASTS, picture) if picture else None


def setting_figures(results: Results, setting: str | None) -> list[Figure]:
    """Returns the pictures of a setting that have something to show.

    There are none until two arms have a finished run: one is no picture of a comparison.
    """
    arms = results.arms_in(setting)
    if len(measured(results, setting)) < min(2, len(arms)):
        return []
    drawn = [
        (f"Difference to {name}", DIFFERENCE, difference_plot(results, name, setting))
        for name in results.references_in(setting)[:1]
    ]
    drawn += [
        (f"Accuracy against {words}", COST, cost_plot(results, words, costs, setting))
        for words, costs in costs_of(results, setting).items()
    ]
    has_broken = any(run.curve.top1 for arm in arms for run in arm.runs if not run.done)
    curve = CURVE + (BROKEN if has_broken else "")
    drawn += [
        ("Every seed", SEEDS, seed_plot(results, setting)),
        ("Learning", curve, curve_plot(results, setting, TOP1_CURVE)),
        ("Fitting", curve, curve_plot(results, setting, LOSS_CURVE)),
    ]
    return [Figure(title, caption, picture) for title, caption, picture in drawn if picture]


def costs_of(results: Results, setting: str | None) -> dict[str, dict[str, float | None]]:
    """Returns what a cost is called -> name of an arm -> its cost."""
    arms, timing = results.arms_in(setting), results.timing
    return {
        "parameters added": {arm.name: arm.parameters_added for arm in arms},
        "MACs added": {arm.name: arm.macs_added for arm in arms},
        f"ms per batch of {timing.batch_size}": {
            arm.name: results.timing_of(arm).median_ms for arm in arms
        },
        f"MiB to train on {timing.memory_batch_size} images": {
            arm.name: results.timing_of(arm).peak_memory_mib for arm in arms
        },
    }
