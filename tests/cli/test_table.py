"""The terminal shows what the page shows, whole words at any width."""

import re
from pathlib import Path

import pytest
from support.whole_study import ARMS, changed, whole_study

from cpsam.cli.table import print_results
from cpsam.report.answer import answer
from cpsam.report.facts import count_words
from cpsam.report.remarks import remarks
from cpsam.report.table import arms_table


@pytest.mark.parametrize("width", [50, 80, 100])
def test_on_a_narrow_terminal_no_word_is_broken(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(width))
    results = whole_study()
    print_results(results, Path("out"))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    table = shown[: shown.index(answer(results)[:20])]
    assert all(len(line) <= width for line in table.splitlines())
    for setting in ARMS:
        for row in arms_table(results, setting).rows:
            assert all(re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", table) for cell in row), row


def test_the_terminal_shows_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    results = changed(unlike={"4": ["processor"]})
    print_results(results, Path("out"))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert answer(results) in lines and "Report: out/report.html" in lines
    assert [
        line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")
    ] == remarks(results)
    assert len(remarks(results)) == 3
    for setting in ARMS:
        assert setting in lines and all(
            cell in shown for row in arms_table(results, setting).rows for cell in row
        )
    assert f"{count_words(results)}; those that did not finish are in no mean" in lines
