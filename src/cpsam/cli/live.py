"""Draws a study while it runs: a view that changes on a terminal, plain lines elsewhere; on
standard error, so that output can be piped.
"""

import time
from types import TracebackType
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from cpsam.cli.progress import Progress, plan_lines
from cpsam.cli.study_progress import Board
from cpsam.cli.terminal import Terminal

ENDS = ("finished", "diverged", "failed", "died")
PAUSE_SECONDS = 30.0


class Live:
    """A callable for ``on_event``, and a context in which the view lives."""

    def __init__(self, console: Terminal | None = None) -> None:
        self.console = console or Terminal(error=True)
        self.board, self.plain = Board(), Progress()
        self.told = time.monotonic()
        self.view = RichLive(
            get_renderable=self.draw, console=self.console, transient=True, refresh_per_second=2
        )

    def __enter__(self) -> "Live":
        if self.console.is_terminal:
            self.view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.view.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        self.board.take(event, time.monotonic())
        if not self.console.is_terminal:
            self.say(event)
        elif event["event"] == "plan":
            for line in plan_lines(event):
                self.console.print(line, soft_wrap=True)
        elif event["event"] == "renewed":
            self.console.print(f"warning: {event['error']}; it is written anew", soft_wrap=True)
        # what must not scroll away with the view
        elif event["event"] in ("diverged", "failed", "died"):
            words = f"{event['arm']}  seed {event['seed']}  {event['event']}: {event['error']}"
            self.console.print(words, soft_wrap=True)
        elif event["event"] == "note":
            self.console.print(event["text"], soft_wrap=True)

    def say(self, event: dict[str, Any]) -> None:
        if "index" in event:  # of several runs at once each line says whose it is
            self.plain.prefix = (
                f"run {event['index'] + 1}/{event['runs']}  {event['arm']}  seed {event['seed']}"
            )
        self.plain(event)
        now = time.monotonic()
        if event["event"] in ENDS and now - self.told > PAUSE_SECONDS:
            self.told = now
            self.plain.line(self.board.line(now))

    def draw(self) -> RenderableType:
        board = self.board
        if not board.runs:
            return Text("loading")
        if board.measuring:
            return Text("measuring latency and memory")
        running = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for run in list(board.running.values()):
            running.add_row(run.arm, f"seed {run.seed}", run.words)
        arms = Table(
            "arm",
            "done",
            "broke off",
            "top-1 so far, %",
            box=None,
            padding=(0, 2, 0, 0),
            header_style="dim",
        )
        for row in board.rows():
            arms.add_row(*row)
        return Group(Text(board.line(time.monotonic()), style="bold"), running, Text(), arms)
