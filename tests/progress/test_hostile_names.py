"""A name that would act on a terminal is text while a study runs."""

import io

import pytest
from rich.text import Text
from support.hostile_names import ACTS, NAMES

from cpsam.progress import LiveStudy
from cpsam.progress.terminal import Terminal
from cpsam.text import printable


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
