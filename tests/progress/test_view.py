"""A notebook shows what a terminal shows, and needs IPython alone."""

import io
import sys
from types import ModuleType
from typing import Any

import pytest

from cpsam.progress import LiveStudy, ProgressBars
from cpsam.progress.terminal import Terminal


class Cell:
    """What IPython's `display` returns for an output that can be changed."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    cell, module = Cell(), ModuleType("IPython.display")
    vars(module).update(HTML=str, display=lambda *_, **__: cell)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("cpsam.progress.view.REDRAWS_PER_SECOND", 1e9)
    return cell


@pytest.mark.parametrize(
    ("kind", "words"),
    [(ProgressBars, ["steps", "3/8", "loss 0.500"]), (LiveStudy, ["5 runs done", "a&lt;b"])],
)
def test_a_notebook_shows_one_output_that_changes_and_vanishes(
    kind: Any, words: list[str], cell: Cell
) -> None:
    run = {"run": "x", "index": 0, "runs": 5, "arm": "a<b", "seed": 0}
    step = {**run, "step": 3, "steps": 8, "epoch": 1, "epochs": 2, "loss": 0.5, "lr": 0.1}
    with kind(Terminal(file=io.StringIO(), force_jupyter=True)) as progress:
        progress({**run, "event": "run"})
        if kind is LiveStudy:
            progress.study.runs = 5
        progress({**step, "event": "step", "images_per_s": 9.0, "seconds_left": 1.0})
    assert all(word in cell.shown[-2] for word in words), cell.shown
    assert cell.shown[-1] == ""
