"""Writes the tables and reports of the documents from the results files that the program wrote:
``make tables``. A test fails when one is stale.

In a document, ``<!-- results: FOLDER -->`` and ``<!-- end -->`` enclose what is written from
``FOLDER/results.json``, FOLDER from the root; ``<!-- answer: FOLDER -->`` its answer alone, with
the best control; ``<!-- training: FILE -->`` what is written from the
JSON of `benchmarks/training.py`; ``<!-- layers: FILE -->`` what is written from the contract of
import-linter in pyproject.toml. ``<!-- blocks: all -->`` encloses the table of all blocks, and
``arguments``, ``cost``, ``pilot`` and ``seen`` what is written about the block NAME;
``solved: all`` and ``seen: all`` enclose what the probes say of all blocks.
"""

import inspect
import json
import re
import tomllib
from pathlib import Path

from probe_tables import seen_table, solved_table

from cpsam.attention import ATTENTION, NOT_IDENTITY_AT_START
from cpsam.measure import count_macs, count_parameters
from cpsam.report.answer import answer, control_words
from cpsam.report.facts import data_notes, made_by
from cpsam.report.formats import written_forms
from cpsam.report.records import Environment
from cpsam.report.remarks import remarks
from cpsam.report.results import read_results
from cpsam.report.table import Table, arms_table
from cpsam.report.values import numbered
from cpsam.run.arm import parse_arm
from cpsam.study.control import match_parameters
from cpsam.typed import checked

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- (\w+): (\S+) -->\n).*?(<!-- end -->)", re.S)
WIDTHS, SIDES = (64, 256), (14, 56)
PILOT = "docs/results/pilot"


def results_table(folder: str) -> str:
    """Returns the tables of a comparison in Markdown, one per setting, the sentence that answers
    it, and where it was measured.
    """
    results = read_results(ROOT / folder)
    tables = [
        f"At `{setting.name}`:\n\n{markdown(arms_table(results, setting.name))}"
        for setting in results.settings
    ]
    titled = "\n".join(tables) if results.has_settings else markdown(arms_table(results))
    said = [
        answer(results),
        *control_words(results),
        *data_notes(results),
        *results.notes,
        *remarks(results),
    ]
    notes = " ".join(f"{note.rstrip('.')}." for note in said if note)
    here = results.environment
    elsewhere = any(made.commit != here.commit for made in results.made_by)
    made = f" Made by {'; '.join(made_by(results))}." if elsewhere else ""
    return f"{titled}\n{notes}\nMeasured by `{results.command}`: {where(here)}.{made}\n"


def answer_lines(folder: str) -> str:
    """Returns the answer of a comparison and how it stands to the best control, a sentence per
    line.
    """
    results = read_results(ROOT / folder)
    return "".join(f"{line}\n" for line in [answer(results), *control_words(results)])


def training_table(file: str) -> str:
    """Returns the images per second of each way to train, ours against it, and what a checkpoint
    takes.
    """
    report = json.loads((ROOT / file).read_text())
    timing = report["timing"]
    rows = []
    for name, speed in timing["images_per_s"].items():
        ratio = timing["ratios"].get(f"our_loop / {name}")
        compared = [spread(ratio, 2), f">= {ratio['target']}"] if ratio else ["", ""]
        rows.append([f"`{name}`", spread(speed, 0), *compared])
    header = ["way to train", "images per second", "speed of `our_loop` / its speed", "wanted"]
    milliseconds = spread(timing["milliseconds_of_a_checkpoint"], 1)
    fraction = timing["share_of_a_checkpoint_in_an_epoch"]
    environment = checked(Environment, report["environment"], file)
    return (
        f"{markdown(Table(header, rows))}\n"
        f"A checkpoint takes {milliseconds} ms, {100 * fraction['median']:.2f} % of an epoch"
        f" (target {100 * fraction['target']:.0f}).\n"
        f"Measured by `benchmarks/training.py`, {report['model']}, batches of"
        f" {report['batch_size']}, {report['rounds']} rounds of {report['steps']} steps:"
        f" {where(environment)}.\n"
    )


def layers(file: str) -> str:
    """Returns the layers of the package, one per line; each imports from the lines below it."""
    contracts = tomllib.loads((ROOT / file).read_text())["tool"]["importlinter"]["contracts"]
    (order,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = "\n".join(re.sub(r"cpsam\.|[()]", "", line) for line in order)
    return f"```text\n{lines}\n```\n"


def blocks_table(_: str) -> str:
    """Returns all blocks with their first sentence and their size."""
    header = ["block", "what it does", "new block", "parameters, C = 256", "MACs, 14x14"]
    rows = []
    for name, block in ATTENTION.items():
        start = "a gate" if name in NOT_IDENTITY_AT_START else "the identity"
        does = (inspect.getdoc(block) or "").partition("\n")[0].replace("``", "`")
        rows.append([f"[`{name}`]({name}.md)", does, start, *size(name, 256, 14)])
    return markdown(Table(header, rows), left=True)


def arguments_table(name: str) -> str:
    """Returns the arguments of a block, from its docstring and its signature."""
    parameters = inspect.signature(ATTENTION[name]).parameters
    lines = (inspect.getdoc(ATTENTION[name]) or "").partition("Args:\n")[2].partition("\n\n")[0]
    rows = []
    for argument, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", lines, re.M):
        default = parameters[argument].default
        shown = "" if default is inspect.Parameter.empty else f"`{default!r}`"
        rows.append([f"`{argument}`", shown, " ".join(text.replace("``", "`").split())])
    return markdown(Table(["argument", "default", "meaning"], rows), left=True)


def cost_table(name: str) -> str:
    """Returns parameters and MACs of a block with default arguments, at several sizes."""
    rows = [
        [str(width), f"{side}x{side}", *size(name, width, side)]
        for width in WIDTHS
        for side in SIDES
    ]
    return markdown(Table(["C", "positions", "parameters", "MACs per image"], rows))


def size(name: str, channels: int, side: int) -> tuple[str, str]:
    """Returns parameters and MACs of a block; the control has the parameters of CPSAM."""
    arm = parse_arm(name)
    if arm.missing:
        arm = match_parameters(arm, parse_arm("cpsam"), [channels])
    make = arm.maker()
    assert make is not None
    block = make(channels)
    return f"{count_parameters(block):,}", f"{count_macs(block, (1, channels, side, side)):,}"


def pilot_rows(name: str) -> str:
    """Returns what the pilot measured of a block and of the bare network."""
    results = read_results(ROOT / PILOT)
    parts = []
    for setting in results.settings:
        table, arms = arms_table(results, setting.name), results.arms_in(setting.name)
        shown = [
            row
            for row, arm in zip(table.rows, arms, strict=True)
            if arm.attention in ("none", name)
        ]
        if len(shown) > 1:
            parts.append(f"At `{setting.name}`:\n\n{markdown(Table(table.header, shown))}")
    if not parts:
        return "The committed studies have no run of this block.\n"
    found = "[The pilot](../results.md) measured this, after eight epochs on CIFAR-100:\n\n"
    return found + "\n".join(parts)


def solved(_: str) -> str:
    """Returns which blocks solve which probe."""
    return markdown(solved_table(), left=True)


def seen(name: str) -> str:
    """Returns the top-1 of a block on each probe, beside the bare network; for "all", of all."""
    return markdown(seen_table() if name == "all" else seen_table(("none", name)))


def markdown(table: Table, left: bool = False) -> str:
    rule = ["---", *["---" if left else "---:"] * (len(table.header) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (table.header, rule, *table.rows))


def spread(values: dict[str, float], digits: int) -> str:
    median, lower, upper = (
        f"{values[key]:.{digits}f}" for key in ("median", "lower_quartile", "upper_quartile")
    )
    return f"{median} ({lower} to {upper})"


def where(made: Environment) -> str:
    machine = f"{made.processor}, {numbered(made.threads or 0, 'thread')}"
    versions = f"torch {made.versions['torch']}, {made.precision}"
    return f"{machine}, {versions}, commit {str(made.commit)[:10]}"


TABLES = {
    "results": results_table,
    "answer": answer_lines,
    "training": training_table,
    "layers": layers,
    "blocks": blocks_table,
    "arguments": arguments_table,
    "cost": cost_table,
    "pilot": pilot_rows,
    "solved": solved,
    "seen": seen,
}


def updated(document: Path) -> str:
    return BLOCK.sub(
        lambda block: f"{block[1]}{TABLES[block[2]](block[3])}{block[4]}", document.read_text()
    )


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def reports() -> dict[Path, str]:
    """Returns every form of each report that is kept here, as it is written today from what was
    measured then.
    """
    kept = [path.parent for path in (ROOT / "docs" / "results").rglob("report.md")]
    return {
        folder / name: text
        for folder in kept
        for name, text in written_forms(read_results(folder)).items()
    }


if __name__ == "__main__":
    for path in documents():
        path.write_text(updated(path))
    for path, text in reports().items():
        path.write_text(text)
