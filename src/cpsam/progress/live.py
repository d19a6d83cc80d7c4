"""Draws a study while it runs: runs and arms where something can be drawn, plain lines elsewhere.

All of it goes to standard error, so that a program can read standard output.
"""

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpsam.progress.bars import ProgressBars
from cpsam.progress.sentences import run_words
from cpsam.progress.study_progress import StudyProgress
from cpsam.progress.terminal import Terminal
from cpsam.progress.view import Drawn, View

ENDS = ("finished", "diverged", "failed", "died")
STAYS = ("plan", "renewed", "note")  # printed above the view, so that they do not vanish with it
SECONDS_BETWEEN_LINES = 30.0  # where nothing can be drawn


class LiveStudy(Drawn):
    """Takes the events of a study.

    Args:
        console: Where to draw. Default: standard error.
    """

    def __init__(self, console: Terminal | None = None) -> None:
        self.study, self.lines = StudyProgress(), ProgressBars(console or Terminal(error=True))
        self.view = View(self.lines.console, self.draw)
        self.line_time = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        self.study.take(event, time.monotonic())
        if not self.view.visible:
            self.print_lines(event)
        elif event["event"] in STAYS:
            self.lines(event)
        elif event["event"] in ("diverged", "failed", "died"):
            run = f"{event['arm']}  seed {event['seed']}"
            self.lines.line(f"{run}  {event['event']}: {event['error']}")
        self.view.update()

    def print_lines(self, event: dict[str, Any]) -> None:
        if "index" in event:
            self.lines.run = run_words(event)
        self.lines(event)
        now = time.monotonic()
        if event["event"] in ENDS and now - self.line_time > SECONDS_BETWEEN_LINES:
            self.line_time = now
            self.lines.line(self.study.line(now))

    def draw(self) -> RenderableType:
        study = self.study
        if not study.runs:
            return Text("loading")
        if study.measuring:
            return Text("measuring latency and memory")
        running = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for run in list(study.running.values()):
            running.add_row(run.arm, f"seed {run.seed}", run.words)
        arms = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("arm", "done", "broke off", "top-1 so far, %"):
            arms.add_column(name)
        for row in study.rows():
            arms.add_row(*row)
        return Group(Text(study.line(time.monotonic()), style="bold"), running, Text(), arms)
