"""Writes the tables and reports of the documents from the results files that the program wrote:
``make tables``. A test fails when one is stale.

In a document, ``<!-- results: FOLDER -->`` and ``<!-- end -->`` enclose what is written from
``FOLDER/results.json``, FOLDER from the root; ``<!-- training: FILE -->`` what is written from the
JSON of `benchmarks/training.py`; ``<!-- layers: FILE -->`` what is written from the contract of
import-linter in pyproject.toml.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from cpsam.report.formats import written_forms
from cpsam.report.table import answer, made_by, settings_of, table_rows
from cpsam.report.words import control_words, data_notes, remarks

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- (results|training|layers): (\S+) -->\n).*?(<!-- end -->)", re.S)


def results_table(folder: str) -> str:
    """The table of a comparison in Markdown, one a setting of a study, the sentence that answers
    it, and where it was measured.
    """
    results = json.loads((ROOT / folder / "results.json").read_text())
    names = [setting["name"] for setting in settings_of(results)]
    tables = [markdown(*table_rows(results, name if len(names) > 1 else None)) for name in names]
    titled = (
        "\n".join(f"At `{name}`:\n\n{table}" for name, table in zip(names, tables, strict=True))
        if len(names) > 1
        else tables[0]
    )
    said = [
        answer(results),
        *control_words(results),
        *data_notes(results),
        *results["notes"],
        *remarks(results),
    ]
    notes = " ".join(f"{note.rstrip('.')}." for note in said if note)
    here = results["environment"]["commit"]
    elsewhere = any(runs["commit"] != here for runs in results.get("made_by", ()))
    made = f" Made by {'; '.join(made_by(results))}." if elsewhere else ""
    return (
        f"{titled}\n{notes}\nMeasured by `{results['command']}`:"
        f" {where(results['environment'])}.{made}\n"
    )


def training_table(file: str) -> str:
    """Images per second of each way to train, ours against it, and what a checkpoint takes."""
    report = json.loads((ROOT / file).read_text())
    timing = report["timing"]
    rows = []
    for name, speed in timing["images_per_s"].items():
        ratio = timing["ratios"].get(f"our_loop / {name}")
        rows.append(
            [
                f"`{name}`",
                spread(speed, 0),
                *([spread(ratio, 2), f">= {ratio['target']}"] if ratio else ["", ""]),
            ]
        )
    table = markdown(
        ["way to train", "images a second", "`our_loop` is so many times as fast", "wanted"], rows
    )
    milliseconds, share = (
        timing["milliseconds_of_a_checkpoint"],
        timing["share_of_a_checkpoint_in_an_epoch"],
    )
    kept = (
        f"A checkpoint takes {spread(milliseconds, 1)} ms, {100 * share['median']:.2f} % of an"
        f" epoch (target {100 * share['target']:.0f})."
    )
    how = (
        f"{report['model']}, batches of {report['batch_size']}, {report['rounds']} rounds of"
        f" {report['steps']} steps"
    )
    return (
        f"{table}\n{kept}\nMeasured by `benchmarks/training.py`, {how}:"
        f" {where(report['environment'])}.\n"
    )


def layers(file: str) -> str:
    """Returns the layers of the package, one per line; each imports from the lines below it."""
    contracts = tomllib.loads((ROOT / file).read_text())["tool"]["importlinter"]["contracts"]
    (order,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = "\n".join(re.sub(r"cpsam\.|[()]", "", line) for line in order)
    return f"```text\n{lines}\n```\n"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: dict[str, float], digits: int) -> str:
    return (
        f"{values['median']:.{digits}f} ({values['lower_quartile']:.{digits}f} to"
        f" {values['upper_quartile']:.{digits}f})"
    )


def where(environment: dict[str, Any]) -> str:
    threads = f"{environment['threads']} thread{'s' * (environment['threads'] != 1)}"
    machine = f"{environment['processor']}, {threads}, torch {environment['versions']['torch']}"
    return f"{machine}, {environment['precision']}, commit {str(environment['commit'])[:10]}"


TABLES = {"results": results_table, "training": training_table, "layers": layers}


def updated(document: Path) -> str:
    return BLOCK.sub(
        lambda block: f"{block[1]}{TABLES[block[2]](block[3])}{block[4]}", document.read_text()
    )


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def reports() -> dict[Path, str]:
    """Every form of each report that is kept here, as it is written today from what was measured
    then.
    """
    kept = [
        path
        for path in (ROOT / "docs" / "results").glob("*/results.json")
        if path.with_name("report.md").exists()
    ]
    return {
        path.with_name(name): text
        for path in kept
        for name, text in written_forms(json.loads(path.read_text())).items()
    }


if __name__ == "__main__":
    for path in documents():
        path.write_text(updated(path))
    for path, text in reports().items():
        path.write_text(text)
