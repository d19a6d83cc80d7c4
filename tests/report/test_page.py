"""A page is well formed, says what the table says, escapes all text and loads nothing."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import pytest
from jinja2 import UndefinedError
from support.comparisons import VARIANTS, comparison, content_of
from support.html_page import Page

from cpsam.report.answer import answer
from cpsam.report.page import facts_part, render_page
from cpsam.report.results import Results
from cpsam.report.table import arms_table
from cpsam.report.templates import template


@pytest.mark.parametrize("results", VARIANTS.values(), ids=VARIANTS)
def test_every_page_is_well_formed_and_says_what_the_table_says(results):
    page = Page(render_page(results))
    header, rows = arms_table(results).header, arms_table(results).rows
    assert all(len(row) == len(header) for row in rows)
    assert [text for _, text in page.find("th", role="columnheader")] == header
    names = [text for _, text in page.find("th", role="rowheader")]
    cells = [(attributes["data-label"], text) for attributes, text in page.find("td", role="cell")]
    assert names == [row[0] for row in rows] == [arm.name for arm in results.arms]
    assert cells == [pair for row in rows for pair in zip(header[1:], row[1:], strict=True)]
    said = [
        text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NON-BREAKING HYPHEN}", "-")
        for _, text in page.find("h1")
    ]
    assert said == [answer(results)]
    assert all(attributes["scope"] in ("row", "col") for attributes, _ in page.find("th"))
    assert len(page.find("caption")) == len(page.find("table"))
    assert (results.command, results.data.note) == (
        page.find("code")[0][1],
        page.find("p", class_="callout")[0][1],
    )


def test_nothing_from_outside_becomes_markup():
    hostile = """<script>alert("1")</script>&'<img src=x onerror=alert(1)>\udcff"""
    top1 = {"none": {0: 0.9}, hostile: {0: None}, "non_local": {0: 0.9}, hostile + "2": {0: 0.95}}
    results = content_of(top1) | {
        "command": hostile,
        "model": hostile,
        "at": [hostile],
        "notes": [hostile],
        "primary": [hostile + "2", "non_local"],
    }
    results["data"] |= {"name": hostile, "note": hostile, "fingerprint": hostile}
    results["recipe"] = {hostile: hostile}
    results["environment"] = {"device": hostile, "versions": {hostile: hostile}}
    for arm in results["arms"]:
        arm["arguments"], arm["places"] = {hostile: hostile}, [hostile]
        for run in arm["runs"]:
            run |= {"error": hostile, "folder": hostile}
    text = render_page(Results.from_json(results))
    page = Page(text)
    assert {tag for tag, _, _ in page.elements}.isdisjoint(
        {"script", "img", "a", "link", "iframe", "object", "form"}
    )
    assert not any(
        key.startswith("on") or key in ("src", "href", "style")
        for _, attributes, _ in page.elements
        for key in attributes
    )
    assert page.find("code")[0][1] == hostile.replace("\udcff", "\\udcff")
    text.encode("utf-8")


def test_the_page_loads_nothing():
    text = render_page(comparison())
    assert not re.search(
        r"https?:|//|@import|url\(", re.sub(r"<!doctype html>|/\*.*?\*/|sha256-[^']*", "", text)
    )
    policy = Page(text).find("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"]
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    assert policy.startswith("default-src 'none'; ")
    assert f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_every_colour_that_writes_is_readable_on_every_ground(mode):
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    style = files("cpsam.report").joinpath("report.css").read_text(encoding="utf-8")
    colours = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, re.S)[mode])
    )
    for name, colour in colours.items():
        if name in ("ink", "soft", "warn") or name.startswith("arm"):
            for ground in ("paper", "card"):
                low, high = sorted((luminance(colour), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_the_wheel_carries_what_a_page_is_made_of(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[2]
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    parts = {path.name for path in (root / "src/cpsam/report").iterdir() if path.is_file()}
    assert parts >= {"page.html.j2", "table.html.j2", "report.css"}
    assert {f"cpsam/report/{name}" for name in parts} <= set(ZipFile(wheel).namelist())


def test_a_template_that_misses_a_name_is_an_error():
    with pytest.raises(UndefinedError, match="'answer' is undefined"):
        template("results.html.j2").render(said=[], tables=[])


def test_the_page_says_how_many_runs_were_made_at_once():
    said = []
    for at_once in (None, 1, 2):
        facts = dict(facts_part(comparison(timing={"runs_at_once": at_once})))
        said.append(dict(facts["Environment of this page"]).get("runs at once"))
    assert said == [None, None, "2"]
