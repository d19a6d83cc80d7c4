"""The tables of a report: every cell is text as a person reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

from cpsam.report.records import ArmResult, ContrastResult
from cpsam.report.results import Results
from cpsam.report.values import (
    MINUS,
    MISSING,
    count,
    difference_words,
    latency_words,
    loss_words,
    mean_words,
    p_words,
    percent,
    points,
)
from cpsam.text import printable

ARMS = (
    "Top-1 is the mean over n seeds ± sample standard deviation, after the last epoch, on the"
    " {split}. A difference pairs the seeds; its 95 % t-interval stands in brackets. MACs are"
    " multiply-adds per image. Milliseconds are the median per batch, with the quartiles in"
    " brackets; the arms were timed in turn."
)
CONTRASTS = "The first row is the primary question of the study."
CONTRAST_COLUMNS = {
    "p, Holm": (
        "Holm's method adjusts the p of the other questions together. Where no difference exists,"
        " it finds any at all with a probability of at most 5 %."
    ),
    "p, sign flips": "The exact sign-flip test is a check: it assumes less and finds less.",
    "detectable, points": (
        "The last column is the true difference that a study of this size and spread finds four"
        " times in five."
    ),
}
FAILURES = (
    "These runs are in no mean and no difference. A pair that lacks one of its runs is left out."
)
RUNS = "One row per run, with the values from its folder."


@dataclass(frozen=True, repr=False)
class Table:
    """A header, rows of the same length, and a caption.

    It prints as a table, and a notebook shows it as one.

    Example:
        >>> Table(("arm", "n"), (("none", "3"), ("cpsam", "12")))
        arm     n
        none    3
        cpsam  12
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __repr__(self) -> str:
        lines = [[printable(cell) for cell in line] for line in (self.header, *self.rows)]
        first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
        return "\n".join(
            "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]) for name, *cells in lines
        )

    def _repr_html_(self) -> str:
        from cpsam.report.templates import template

        return template("table.html.j2").render(table=self)


def arms_table(results: Results, setting: str | None = None) -> Table:
    """Returns the comparison, one row per arm.

    Args:
        results: Of a study.
        setting: Only the arms of this one, by their names in it; None: all.

    Returns:
        The rows in the order of the arms. A reference arm that did not take part has no column.
    """
    references, timing = results.references_in(setting), results.timing
    split = next(each.data for each in results.settings if setting in (None, each.name)).measured_on
    batch = f" of {timing.batch_size}" if timing.batch_size else ""
    differences = [f"vs {name}, points" for name in references]
    header = ["arm", "parameters added", "MACs", f"ms per batch{batch}", "top-1, %", "n"]
    rows = [
        [arm.name if setting is None else arm.arm, *arm_cells(results, arm, references)]
        for arm in results.arms_in(setting)
    ]
    return Table([*header, *differences], rows, ARMS.format(split=split))


def arm_cells(results: Results, arm: ArmResult, references: Sequence[str]) -> list[str]:
    found = results.differences_of(arm)
    return [
        f"{arm.parameters_added:,}",
        count(arm.macs),
        latency_words(results.timing_of(arm).latency_ms),
        mean_words(arm.top1),
        str(arm.top1.n),
        *(difference_words(found.get(reference), arm.top1.n) for reference in references),
    ]


def questions_title(results: Results) -> str:
    """Returns the heading of the questions. A comparison has no plan in a file."""
    return "The questions of the plan" if results.name else "The questions"


def contrasts_table(results: Results) -> Table:
    """Returns the questions, the primary one first. A column that no question fills is left out.

    Only the secondary contrasts have their p adjusted, together, by Holm.
    """
    firsts = {results.short_name(contrast.arm) for contrast in results.contrasts}
    name = f"{next(iter(firsts))} {MINUS}" if len(firsts) == 1 else "contrast"
    header = [name, "difference, points", "n", "p", "p, Holm", "p, sign flips"]
    header.append("detectable, points")
    rows = [
        contrast_cells(results, contrast, with_arm=len(firsts) > 1)
        for contrast in results.contrasts
    ]
    kept = [
        index
        for index in range(len(header))
        if index < 3 or any(row[index] != MISSING for row in rows)
    ]
    columns = [header[index] for index in kept]
    explained = [words for column, words in CONTRAST_COLUMNS.items() if column in columns]
    caption = " ".join([CONTRASTS, *explained])
    return Table(columns, [[row[index] for index in kept] for row in rows], caption)


def contrast_cells(results: Results, contrast: ContrastResult, with_arm: bool) -> list[str]:
    found = contrast.detectable
    return [
        contrast_name(results, contrast, with_arm),
        difference_words(contrast, contrast.n),
        str(contrast.n),
        p_words(contrast.p if contrast.primary else None),
        p_words(contrast.p_holm),
        p_words(contrast.p_sign_flip),
        MISSING if found is None else points(found).removeprefix("+"),
    ]


def contrast_name(results: Results, contrast: ContrastResult, with_arm: bool) -> str:
    arm = f"{results.short_name(contrast.arm)} {MINUS} " if with_arm else ""
    where = f", {contrast.setting}" if results.has_settings else ""
    return f"{arm}{results.short_name(contrast.reference)}{where}"


def failures_table(results: Results) -> Table:
    """Returns the runs that are not done. Runs of an arm that ended alike stand in one row."""
    alike: dict[tuple[str, str, str], list[int]] = {}
    for arm in results.arms:
        for run in arm.runs:
            if not run.done:
                end = (arm.name, run.status, run.error or MISSING)
                alike.setdefault(end, []).append(run.seed)
    return Table(
        ("arm", "seeds", "status", "error"),
        [
            (name, ", ".join(map(str, seeds)), status, error)
            for (name, status, error), seeds in alike.items()
        ],
        FAILURES,
    )


def runs_table(results: Results) -> Table:
    """Returns one row per run."""
    return Table(
        ("arm", "seed", "status", "top-1, %", "top-5, %", "loss", "folder"),
        [
            (
                arm.name,
                str(run.seed),
                run.status,
                percent(run.top1),
                percent(run.top5),
                loss_words(run.loss),
                run.folder,
            )
            for arm in results.arms
            for run in arm.runs
        ],
        RUNS,
    )
