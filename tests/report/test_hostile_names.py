"""A name that would act on a page, a Markdown viewer or a spreadsheet is text in every form."""

import csv
import io
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from support.hostile_names import ACTS, NAMES
from support.whole_study import whole_content

from cpsam.cli.table import print_results
from cpsam.report.escape import markdown, spreadsheet
from cpsam.report.formats import written_forms
from cpsam.report.results import Results
from cpsam.text import printable


def renamed(value: Any, name: str) -> Any:
    """The results in which the arm "cpsam" and whatever else a person may name has this name."""
    if isinstance(value, dict):
        return {renamed(key, name): renamed(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, name) for inner in value]
    return (
        value.replace("cpsam", name).replace("the loss is nan", name)
        if isinstance(value, str)
        else value
    )


def hostile(name: str) -> Results:
    content = renamed(whole_content(), name)
    data = {**content["data"], "note": name}
    return Results.from_json(
        content
        | {
            "command": f"cpsam study {name}",
            "data": data,
            "settings": [{**setting, "data": data} for setting in content["settings"]],
            "notes": [name],
            "warnings": [f"{name} differs"],
            "unlike": {"4": ["processor"]},
            "environment": {"processor": name},
        }
    )


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"{tag} {key}" for key, _ in attrs)}


def structure(text: str) -> list[str]:
    """The tokens of a Markdown document but for its text."""
    viewer = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = viewer.parse(text)
    return [
        token.type
        for each in tokens
        for token in (each, *(each.children or []))
        if token.type not in ("text", "text_special")
    ]


def shown_markdown(text: str) -> str:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return "".join(
        token.content
        for each in tokens
        for token in (each.children or [each] if each.type == "fence" else each.children or [])
    )


@cache
def harmless() -> dict[str, str]:
    return written_forms(hostile("cpsam"))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_every_form(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    results, known = hostile(name), harmless()
    forms = written_forms(results)
    for form in forms.values():
        assert not ACTS.search(form)
        form.encode()
    assert Tags(forms["report.html"]).found == Tags(known["report.html"]).found
    assert structure(forms["report.md"]) == structure(known["report.md"])
    assert printable(" ".join(name.split())) in shown_markdown(forms["report.md"])
    assert not re.search(
        r"(?<![\\:])(?<!\\:)//|(?<!\\)\bwww\.(?=e)", forms["report.md"].split("## The command")[0]
    )
    for file in ("arms.csv", "runs.csv", "contrasts.csv"):
        rows = list(csv.reader(io.StringIO(forms[file])))
        assert [len(row) for row in rows] == [
            len(row) for row in csv.reader(io.StringIO(known[file]))
        ]
        cells = [part.strip() for row in rows for cell in row for part in cell.split(";")]
        assert all(
            cell[0] not in "=@\uff1d" and (cell[0] not in "+-" or float(cell) is not None)
            for cell in cells
            if cell
        )
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results
    print_results(results, Path(name))
    shown = capsys.readouterr().out
    assert not ACTS.search(shown) and printable(name) in shown


@pytest.mark.parametrize(
    "number",
    [0, -0.5, 1.25e-7, True, 10**30, "-0.5", "+1.2 [-0.3, +2.7]", "-1e-05", "0.5", "a-b", ""],
)
def test_numbers_in_a_spreadsheet_stay_numbers(number: object) -> None:
    assert spreadsheet(number) == number


def test_ordinary_names_stay_as_they_are() -> None:
    for name in (
        "cpsam-grouped",
        "cpsam:fusion=sum,reduction=8",
        "global_context_wide",
        "+0.52 [\N{MINUS SIGN}0.10, +1.14]",
        "99.4 %",
        "a @ b",
    ):
        assert markdown(name) == name == printable(name)
