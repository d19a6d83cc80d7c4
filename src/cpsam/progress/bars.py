"""Draws the progress of runs: bars where something can be drawn, plain lines elsewhere.

All of it goes to standard error, so that a program can read standard output.
"""

import time
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cpsam.progress.sentences import plan_lines, run_words, start_lines
from cpsam.progress.terminal import Terminal
from cpsam.progress.view import Drawn, View
from cpsam.text import printable

SECONDS_BETWEEN_LINES = 60  # where there are no bars


class ProgressBars(Drawn):
    """Takes the events of one or of several runs.

    Args:
        console: Where to draw. Default: standard error.
    """

    def __init__(self, console: Terminal | None = None) -> None:
        self.console = console or Terminal(error=True)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        ]
        self.bars = Progress(*columns, console=self.console)
        self.view = View(self.console, self.bars.get_renderable)
        self.tasks: dict[str, TaskID] = {}
        self.run = ""  # which of several runs the next events are about
        self.line_time = time.monotonic()
        self.waits = False
        self.notes: set[str] = set()

    def __call__(self, event: dict[str, Any]) -> None:
        draw = getattr(self, f"on_{event['event']}", None)
        if draw is not None:
            draw(event)
            self.view.update()

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(text, soft_wrap=True)

    def run_line(self, text: str) -> None:
        """Prints a line that says which of several runs it is about."""
        self.line(f"{self.run}  {text}" if self.run else text)

    def bar(self, name: str, done: float, total: float, note: str = "") -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(printable(name), total=total, note="")
        self.bars.update(self.tasks[name], completed=done, total=total, note=printable(note))

    def drop(self, name: str) -> None:
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))

    def on_data(self, event: dict[str, Any]) -> None:
        self.bar(event["what"], event["done"], event["total"])
        if event["done"] >= event["total"]:
            self.drop(event["what"])

    def on_start(self, event: dict[str, Any]) -> None:
        # A study has printed these lines once for all its runs.
        for line in () if self.run else start_lines(event):
            self.line(line)

    def on_run(self, event: dict[str, Any]) -> None:
        self.run = run_words(event)
        self.bar("runs", event["index"], event["runs"])
        self.drop("steps")

    def on_step(self, event: dict[str, Any]) -> None:
        pace = f"lr {event['lr']:.3g}  {event['images_per_s']:.0f} images/s"
        note = f"{self.run}  loss {event['loss']:.3f}  {pace}"
        self.bar("steps", event["step"], event["steps"], note)
        if not self.view.visible and time.monotonic() - self.line_time >= SECONDS_BETWEEN_LINES:
            self.line_time = time.monotonic()
            left = f"{event['seconds_left'] / 60:.0f} minutes left"
            self.line(f"{note.strip()}  step {event['step']}/{event['steps']}  {left}")

    def on_note(self, event: dict[str, Any]) -> None:
        # Many runs have the same note about their network and its weights.
        if event["text"] not in self.notes:
            self.notes.add(event["text"])
            self.line(event["text"])

    def on_spike(self, event: dict[str, Any]) -> None:
        median = f"the median before it is {event['median']:.3f}"
        self.run_line(f"loss {event['loss']:.3f} at step {event['step']}; {median}")

    def on_epoch(self, event: dict[str, Any]) -> None:
        if not self.view.visible:
            reached = f"loss {event['train_loss']:.4f}  top-1 {100 * event['top1']:.2f} %"
            self.run_line(f"epoch {event['epoch']}/{event['epochs']}  {reached}")

    def on_resumed(self, event: dict[str, Any]) -> None:
        for warning in event["warnings"]:
            self.line(f"warning: {warning}")
        self.run_line(f"continues after step {event['step']} of {event['steps']}")

    def on_finished(self, event: dict[str, Any]) -> None:
        self.drop("steps")
        how = "was finished before" if event["read"] else f"{event['seconds']:.1f} s"
        self.run_line(f"top-1 {100 * event['top1']:.2f} %  {how}")

    def on_diverged(self, event: dict[str, Any]) -> None:
        self.drop("steps")
        self.run_line(f"diverged: {event['error']}")

    def on_failed(self, event: dict[str, Any]) -> None:
        self.drop("steps")
        self.run_line(f"failed: {event['error']}")

    def on_kept(self, event: dict[str, Any]) -> None:
        self.run_line(f"had {event['status']} before: {event['error']}")

    def on_died(self, event: dict[str, Any]) -> None:
        self.run_line(f"its worker died: {event['error']}")

    def on_renewed(self, event: dict[str, Any]) -> None:
        self.line(f"warning: {event['error']}; it is written again")

    def on_waiting(self, event: dict[str, Any]) -> None:
        if not self.waits:
            left = "the run that is" if event["runs"] == 1 else f"the {event['runs']} runs that are"
            self.line(f"another process is at {left} left; waiting for it")
        self.waits = True

    def on_plan(self, event: dict[str, Any]) -> None:
        for line in plan_lines(event):
            self.line(line)

    def on_latency(self, event: dict[str, Any]) -> None:
        self.drop("runs")
        self.line("measuring latency")
