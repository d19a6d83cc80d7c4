"""Renders the page of a comparison: one HTML file that loads nothing, for screen, phone and paper.

`page.html.j2` holds the markup, this file collects what is put there.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from markupsafe import Markup

from cpsam.report.answer import answer, control_words, evidence, subject
from cpsam.report.facts import blocks, data_notes, facts_words, made_by, notes, protocol
from cpsam.report.figures import Figure, contrasts_figure, setting_figures
from cpsam.report.records import SettingRecord
from cpsam.report.remarks import remarks
from cpsam.report.results import Results
from cpsam.report.table import (
    Table,
    arms_table,
    contrasts_table,
    failures_table,
    questions_title,
    runs_table,
)
from cpsam.report.templates import template
from cpsam.report.values import duration, unbroken, words
from cpsam.typed import as_json


@dataclass(frozen=True)
class SettingPart:
    """What the page shows of a setting."""

    name: str
    heading: str
    table: Table
    figures: list[Figure]


@dataclass(frozen=True)
class ContrastsPart:
    """What the page shows of the questions of a plan or a comparison."""

    title: str
    table: Table
    figure: Figure | None


def render_page(results: Results) -> str:
    """Returns the page of a comparison as a whole HTML document.

    The answer comes first, in one sentence, then the table, the pictures, what failed, and how to
    make it again. All text of `results` is escaped. The page needs no network and no script, and
    follows the light or dark mode of its reader.
    """
    style = files("cpsam.report").joinpath("report.css").read_text(encoding="utf-8")
    lead = [*map(unbroken, evidence(results)), facts_words(results)]
    return template("page.html.j2").render(
        style=Markup(style),
        policy=policy(style),
        source=f"cpsam study {results.name}" if results.name else "cpsam compare",
        subject=subject(results),
        answer=unbroken(answer(results)),
        control=[unbroken(sentence) for sentence in control_words(results)],
        lead=" ".join(lead),
        data_notes=data_notes(results),
        remarks=remarks(results),
        primary=results.short_name(results.primary[0]),
        contrasts=contrasts_part(results),
        settings=[setting_part(results, setting) for setting in results.settings],
        notes=notes(results),
        failures=failures_table(results),
        command=results.command,
        facts=facts_part(results),
        runs=runs_table(results),
    )


def policy(style: str) -> str:
    """Returns a content security policy that allows our style and nothing else.

    A name that became markup by mistake could still load, run and send nothing.
    """
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def contrasts_part(results: Results) -> ContrastsPart | None:
    """Returns None for a study with one question: the answer has said all of it."""
    if len(results.contrasts) < 2:
        return None
    title, table = questions_title(results), contrasts_table(results)
    return ContrastsPart(title, table, contrasts_figure(results))


def setting_part(results: Results, setting: SettingRecord) -> SettingPart:
    """Returns the part of one setting; the only one needs no heading."""
    name = setting.name if results.has_settings else None
    return SettingPart(
        name=name or "",
        heading=f"{name}: {setting.model}, blocks at {words(setting.at)}" if name else "",
        table=arms_table(results, name),
        figures=setting_figures(results, name),
    )


def facts_part(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns titles and pairs of a name and a value."""
    total, runs = results.timing.total_seconds, made_by(results)
    machine = environment_facts(results)
    machine["data fingerprint"] = [data.fingerprint for data in results.datasets]
    if total is not None:
        machine["took"] = duration(total)
    if (at_once := results.timing.runs_at_once or 1) > 1:
        machine["runs at once"] = at_once
    facts: list[tuple[str, Mapping[str, object]]] = [
        ("Protocol", protocol(results)),
        ("Recipe", results.recipe),
        ("Runs", {"made by": "; ".join(runs)} if runs else {}),
        ("Environment of this page", machine),
        ("Blocks", blocks(results)),
    ]
    return [
        (title, [(key, words(value)) for key, value in pairs.items()])
        for title, pairs in facts
        if pairs
    ]


def environment_facts(results: Results) -> dict[str, object]:
    """Returns what is known of the machine that wrote the report."""
    facts = as_json(results.environment)
    return {key: value for key, value in facts.items() if value not in (None, {})}
