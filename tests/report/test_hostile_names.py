"""Names that would act on a terminal, a page, a Markdown viewer or a spreadsheet: in every form of
a report they are text.
"""

import csv
import io
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.text import Text
from support.whole_study import whole_content

from cpsam.cli import main
from cpsam.cli.output import Printable
from cpsam.cli.table import print_results
from cpsam.progress import LiveStudy
from cpsam.progress.terminal import Terminal
from cpsam.report.escape import markdown, spreadsheet
from cpsam.report.formats import written_forms
from cpsam.report.results import Results
from cpsam.text import printable

NAMES = [
    "[/x]",
    "[red]",
    "[link=http://evil]x[/link]",
    ":smile:",
    "\x1b]0;title\x07",
    "\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "a\rb",
    "a\x08\x08\x08b",
    "a\nb",
    "a\u2028b\x85c",
    "a\u202eb\u2066c",
    "a\u200bb\ufeffc",
    "caf\udce9",
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|'x'!A0",
    "@SUM(1)",
    "\t=1+1",
    " =1+1",
    "a;=1+1",
    "\uff1d1+1",
    "-0.5",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "# H1",
    "## a ##",
    "- - -",
    "1. a",
    "2) a",
    "+ a",
    "===",
    "***",
    "~~~",
    "> a",
    "    code",
    "![](http://evil/x.png)",
    "[a](javascript:alert(1))",
    "[1](http://evil)",
    "[1]: http://evil",
    "http://evil/x www.evil.com <http://evil> a@evil.com",
    "a|b\\|c",
    "`code`",
    "```",
    "*a* __b__ _c_ ~~d~~ __a_ _",
    "&lt;b&gt; &amp; &#60;",
    '" onload="x',
    "{{ 7*7 }} ${x} %s {0}",
]
ACTS = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\u200b]|[\ud800-\udfff]"
)


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


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_while_a_study_runs(name: str, terminal: bool) -> None:
    out = io.StringIO()
    run = {"run": name, "index": 0, "runs": 2, "arm": name, "seed": 0}
    numbers = {
        "epoch": 1,
        "epochs": 2,
        "step": 1,
        "steps": 4,
        "loss": 1.0,
        "lr": 0.1,
        "images_per_s": 1.0,
        "seconds_left": 1.0,
        "top1": 0.5,
    }
    with LiveStudy(
        Terminal(file=out, force_terminal=terminal, width=200, legacy_windows=False)
    ) as live:
        for event in (
            {"event": "data", "what": name, "done": 1, "total": 2},
            {**run, "event": "run"},
            {**run, "event": "resumed", "warnings": [name], "step": 1, "steps": 4},
            {**run, **numbers, "event": "step"},
            {**run, "event": "failed", "error": name},
            {**run, "event": "died", "error": name},
        ):
            live(event)
        live.view.live.refresh()
    # On a terminal rich itself moves the cursor and colours words; a title or a bell is never its
    # own.
    said = Text.from_ansi(out.getvalue()).plain if terminal else out.getvalue()
    assert printable(name) in said.replace("\n", "") and not ACTS.search(said.replace("\r", ""))
    assert (
        "\x07" not in out.getvalue()
        and "\x1b[31m" not in out.getvalue()
        and "\x1b]" not in out.getvalue()
    )


VERBS = (
    ["study"],
    ["eval"],
    ["compare", "--attention"],
    ["cost", "--model"],
    [],
    ["list"],
    ["data", "verify"],
)
GIVEN = [
    (VERBS[index % len(VERBS)], name)
    for index, name in enumerate(NAMES)
    if not name.startswith("-")
]


@pytest.mark.parametrize(("verb", "name"), GIVEN)
def test_an_error_shows_a_name_in_one_line(
    verb: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*verb, name])
    error = capsys.readouterr().err
    assert left.value.code in (2, 3) and error.startswith("cpsam: ")
    assert error.count("\n") == 1 and not ACTS.search(error)


def test_warnings_of_anybody_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Printable(sys.stderr)
    print("a\x1b]0;x\x07", "b\u202e", file=stream)
    stream.writelines(["c\x9b", "\n"])
    assert capsys.readouterr().err == "a\\x1b]0;x\\x07 b\\u202e\nc\\x9b\n"


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


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_locale_without_our_characters_gets_others(encoding: str, tmp_path: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from cpsam.cli.output import printable_output
        with printable_output():
            from support.whole_study import whole_study
            from cpsam.cli.table import print_results
            print_results(whole_study(), Path("caf\\u00e9\\u4e2d"))
            print("\\u2212\\u4e2d\\u00b1", file=sys.stderr)
    """
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parents[1])],
        capture_output=True,
        env=environment,
        check=True,
    )
    shown, said = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert (
        ("[-0.10" in shown or re.search(r"\[-\d", shown))
        if encoding != "utf-8"
        else "\N{MINUS SIGN}" in shown
    )
    assert said.split() == [
        {"utf-8": "\N{MINUS SIGN}\u4e2d\u00b1", "latin-1": "-?\u00b1", "ascii": "-?+-"}[encoding]
    ]
