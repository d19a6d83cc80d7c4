"""The same report for other readers: Markdown for people, CSV for programs."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpsam.report.escape import markdown, markdown_code, spreadsheet
from cpsam.report.page import render_report
from cpsam.report.table import (
    FAILED_HEADER,
    answer,
    contrast_rows,
    failed_runs,
    made_by,
    settings_of,
    table_rows,
)
from cpsam.report.words import (
    blocks,
    control_words,
    data_notes,
    evidence_words,
    facts_words,
    protocol,
    remarks,
    words,
)


def written_forms(results: Mapping[str, Any]) -> dict[str, str]:
    """Every form of a report by the name of its file."""
    return {
        "report.html": render_report(results),
        "report.md": render_markdown(results),
        "arms.csv": arms_csv(results),
        "contrasts.csv": contrasts_csv(results),
        "runs.csv": runs_csv(results),
    }


def render_markdown(results: Mapping[str, Any]) -> str:
    """The report as Markdown, without its pictures.

    Args:
        results: What the study wrote, ``schema`` 1.
    """
    settings = settings_of(results)
    said = " ".join([*control_words(results), *evidence_words(results), facts_words(results)])
    parts = [f"# {markdown(answer(results))}", markdown(said)]
    parts += [f"> {markdown(text)}" for text in (*data_notes(results), *remarks(results))]
    if len(results.get("contrasts", ())) > 1:
        parts += [
            "## The questions, as written in the plan",
            markdown_table(*contrast_rows(results)),
        ]
    for setting in settings:
        only = len(settings) == 1
        title = (
            f"{'Arms' if only else setting['name']}: {setting['model']}, blocks at"
            f" {words(setting['at'])}"
        )
        parts += [f"## {markdown(title)}"]
        parts += [markdown_table(*table_rows(results, None if only else setting["name"]))]
    parts += [f"- {markdown(note)}" for note in results.get("notes", ())]
    if failed := failed_runs(results):
        parts += ["## Runs that did not finish", markdown_table(FAILED_HEADER, failed)]
    parts += ["## The command that made this page", markdown_code(results["command"])]
    sections = [
        ("Protocol", protocol(results)),
        ("Recipe", results.get("recipe")),
        ("Blocks", blocks(results)),
    ]
    for title, pairs in (*sections, ("Environment", results.get("environment"))):
        if pairs:
            parts += [
                f"## {title}",
                "\n".join(
                    f"- {markdown(f'{key}: {words(value)}')}" for key, value in pairs.items()
                ),
            ]
    if runs := made_by(results):
        parts += ["## Runs", "\n".join(f"- {markdown(line)}" for line in runs)]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Cells are escaped, so that a name cannot become a column.

    Example:
        >>> print(markdown_table(["a", "b"], [["x|y", 1]]))
        | a | b |
        | --- | ---: |
        | x\\|y | 1 |
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [list(map(markdown, header)), rule, *(list(map(markdown, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comma_separated(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns numbers in full, text that no spreadsheet takes for a formula, and nothing for what
    is missing.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(map(spreadsheet, row) for row in rows)
    return text.getvalue()


def arms_csv(results: Mapping[str, Any]) -> str:
    """One line an arm and setting."""
    timing = (results.get("timing") or {}).get("arms", {})
    header = (
        "setting",
        "arm",
        "attention",
        "arguments",
        "recipe",
        "parameters",
        "parameters_added",
        "macs",
        "macs_added",
    )
    header += ("latency_ms", "peak_memory_bytes", "n", "top1_mean", "top1_sd")
    rows = []
    for arm in results["arms"]:
        measured, top1 = timing.get(arm["name"], {}), arm["top1"]
        own = [json.dumps(arm[key]) if arm.get(key) else None for key in ("arguments", "recipe")]
        costs = [arm[key] for key in header[5:9]]
        clock = [
            (measured.get("latency_ms") or {}).get("median"),
            measured.get("peak_memory_bytes"),
        ]
        name = [arm.get("setting", ""), arm.get("arm") or arm["name"], arm["attention"]]
        rows.append([*name, *own, *costs, *clock, top1["n"], top1["mean"], top1["sd"]])
    return comma_separated(header, rows)


def contrasts_csv(results: Mapping[str, Any]) -> str:
    """One line a question, the primary one first."""
    header = (
        "primary",
        "setting",
        "arm",
        "reference",
        "n",
        "mean",
        "sd",
        "low",
        "high",
        "p",
        "p_holm",
        "p_sign_flip",
        "detectable",
        "note",
    )
    return comma_separated(
        header, ([contrast[key] for key in header] for contrast in results.get("contrasts", ()))
    )


def runs_csv(results: Mapping[str, Any]) -> str:
    """One line a run and setting."""
    header = ("setting", "arm", "seed", "status", "top1", "top5", "loss", "folder", "error")
    rows = []
    for arm in results["arms"]:
        for run in arm["runs"]:
            rows.append(
                [
                    arm.get("setting", ""),
                    arm.get("arm") or arm["name"],
                    *(run.get(key) for key in header[2:]),
                ]
            )
    return comma_separated(header, rows)
