"""The same report in other forms: Markdown for people, CSV for programs."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from cpsam.errors import unknown
from cpsam.report.answer import answer, control_words, evidence
from cpsam.report.escape import markdown, markdown_code, spreadsheet
from cpsam.report.facts import blocks, data_notes, facts_words, made_by, notes, protocol
from cpsam.report.page import environment_facts, render_page
from cpsam.report.remarks import remarks
from cpsam.report.results import Results
from cpsam.report.table import Table, arms_table, contrasts_table, failures_table, questions_title
from cpsam.report.values import words

CONTRAST = ("primary", "setting", "arm", "reference", "n", "mean", "sd", "low", "high", "p")
CONTRAST += ("p_holm", "p_sign_flip", "detectable", "note")
ARM = ("setting", "arm", "attention", "arguments", "recipe", "parameters", "parameters_added")
ARM += ("macs", "macs_added", "latency_ms", "peak_memory_bytes", "n", "top1_mean", "top1_sd")
RUN = ("setting", "arm", "seed", "status", "top1", "top5", "loss", "folder", "error")


def written_forms(results: Results) -> dict[str, str]:
    """Returns every form of a report by the name of its file."""
    return {
        "report.html": render_page(results),
        "report.md": render_markdown(results),
        **{f"{rows}.csv": render_csv(results, rows) for rows in RECORDS},
    }


def rendered(results: Results, suffix: str, rows: str = "runs") -> str:
    """Returns one form of a report.

    Args:
        results: Of a study.
        suffix: Of its file: ".html", ".md", ".csv" or ".json".
        rows: What a line of CSV is about: "arms", "contrasts" or "runs".

    Raises:
        UserError: If the suffix or the kind of rows is unknown.
    """
    forms = {
        ".html": render_page,
        ".md": render_markdown,
        ".csv": lambda results: render_csv(results, rows),
        ".json": render_json,
    }
    if suffix not in forms:
        raise unknown("suffix", suffix, forms)
    return forms[suffix](results)


def render_json(results: Results) -> str:
    """Returns the content of a `results.json`."""
    return json.dumps(results.to_json(), indent=1, allow_nan=False) + "\n"


def render_markdown(results: Results) -> str:
    """Returns the report as Markdown, without its pictures."""
    said = " ".join([*control_words(results), *evidence(results), facts_words(results)])
    parts = [f"# {markdown(answer(results))}", markdown(said)]
    parts += [f"> {markdown(text)}" for text in (*data_notes(results), *remarks(results))]
    if len(results.contrasts) > 1:
        table = markdown_table(contrasts_table(results))
        parts += [f"## {questions_title(results)}", table]
    for setting in results.settings:
        name = setting.name if results.has_settings else None
        title = f"{name or 'Arms'}: {setting.model}, blocks at {words(setting.at)}"
        parts += [f"## {markdown(title)}", markdown_table(arms_table(results, name))]
    parts += [f"- {markdown(note)}" for note in notes(results)]
    if (failed := failures_table(results)).rows:
        parts += ["## Runs that did not finish", markdown_table(failed)]
    parts += ["## The command that made this page", markdown_code(results.command)]
    sections: list[tuple[str, Mapping[str, object]]] = [
        ("Protocol", protocol(results)),
        ("Recipe", results.recipe),
        ("Blocks", blocks(results)),
        ("Environment", environment_facts(results)),
    ]
    for title, pairs in sections:
        lines = [f"{key}: {words(value)}" for key, value in pairs.items()]
        parts += [f"## {title}", markdown_list(lines)] if lines else []
    if runs := made_by(results):
        parts += ["## Runs", markdown_list(runs)]
    return "\n\n".join(parts) + "\n"


def markdown_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def markdown_table(table: Table) -> str:
    """Returns a table whose cells are escaped, so that a name cannot become a column.

    Example:
        >>> print(markdown_table(Table(["a", "b"], [["x|y", "1"]])))
        | a | b |
        | --- | ---: |
        | x\\|y | 1 |
    """
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    header, *rows = [list(map(markdown, line)) for line in (table.header, *table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def render_csv(results: Results, rows: str) -> str:
    """Returns the records of :func:`records_of` as CSV; a missing value is an empty cell."""
    header, records = records_of(results, rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(map(spreadsheet, record) for record in records)
    return text.getvalue()


def records_of(results: Results, rows: str) -> tuple[Sequence[str], list[list[object]]]:
    """Returns the names of the fields and one record per arm, contrast or run.

    Raises:
        UserError: If `rows` is none of "arms", "contrasts" and "runs".
    """
    if rows not in RECORDS:
        raise unknown("kind of rows", rows, RECORDS)
    header, records = RECORDS[rows]
    return header, records(results)


def arm_records(results: Results) -> list[list[object]]:
    """Returns one record per arm and setting, with the fields of ``ARM``."""
    records: list[list[object]] = []
    for arm in results.arms:
        timing = results.timing_of(arm)
        own = [json.dumps(each) if each else None for each in (arm.arguments, arm.recipe)]
        costs = [arm.parameters, arm.parameters_added, arm.macs, arm.macs_added]
        measured = [timing.median_ms, timing.peak_memory_bytes]
        top1 = [arm.top1.n, arm.top1.mean, arm.top1.sd]
        records.append([arm.setting, arm.arm, arm.attention, *own, *costs, *measured, *top1])
    return records


def contrast_records(results: Results) -> list[list[object]]:
    """Returns one record per question, the primary one first, with the fields of ``CONTRAST``."""
    return [[getattr(each, key) for key in CONTRAST] for each in results.contrasts]


def run_records(results: Results) -> list[list[object]]:
    """Returns one record per run and setting, with the fields of ``RUN``."""
    return [
        [arm.setting, arm.arm, *(getattr(run, key) for key in RUN[2:])]
        for arm in results.arms
        for run in arm.runs
    ]


RECORDS = {
    "arms": (ARM, arm_records),
    "contrasts": (CONTRAST, contrast_records),
    "runs": (RUN, run_records),
}
