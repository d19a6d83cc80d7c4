"""Draws what a library function reports: bars on a terminal, plain lines elsewhere; on standard
error, so that output can be piped.
"""

import time
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cpsam.cli.terminal import Terminal
from cpsam.report.words import place_words
from cpsam.text import printable

SECONDS_BETWEEN_LINES = 60  # where there are no bars
SEEDS_SHOWN = 20


def images_words(data: dict[str, Any]) -> str:
    """Returns the images that are trained on and measured on."""
    return (
        f"{data['train_images']:,} images to train on, {data['test_images']:,} of the"
        f" {data['measured_on']} to measure on"
    )


def computes_words(how: dict[str, Any]) -> str:
    """Returns what is computed with."""
    layout = "channels last" if how["channels_last"] else "channels first"
    return (
        f"on {how['device']}, in {how['precision']}, {layout}, {how['threads']}"
        f" thread{'s' * (how['threads'] != 1)}"
    )


def plan_lines(event: dict[str, Any]) -> list[str]:
    """Returns what a study does in words: what is trained and measured on which images, how it is
    computed, and how many runs there are.
    """
    lines = []
    for setting in event.get("settings", ()):
        data, name = setting["data"], f"{setting['name']}: " if setting["name"] else ""
        what = f"{setting['model']} at {', '.join(setting['at'])}"
        lines.append(
            f"{name}{what}; {data['name']}: {images_words(data)}, {data['classes']:,} classes"
        )
        if data.get("note"):
            lines.append(data["note"])
        if setting["weights"]:
            lines.append(f"starts from {setting['weights']}; {'; '.join(setting['heads'])}")
    if (how := event.get("computes")) is not None:
        lines.append(computes_words(how))
    seeds = " ".join(map(str, event["seeds"][:SEEDS_SHOWN])) + f" … ({len(event['seeds']):,})" * (
        len(event["seeds"]) > SEEDS_SHOWN
    )
    return [
        *lines,
        (
            f"{event['runs']:,} run{'s' * (event['runs'] != 1)}, {event['ended']:,} of them ended"
            f" before; seeds {seeds}; {event['folder']}"
        ),
    ]


def start_lines(event: dict[str, Any]) -> list[str]:
    """Returns what one run does in words: the network and its images, then how it is computed."""
    blocks = (
        f"{event['attention']} at {place_words(event['places'])}"
        if event["places"]
        else "no attention"
    )
    head = "a new classifier" if event["new_head"] else "their classifier"
    start = (
        f"starts from {event['weights']} with {head}"
        if event["weights"]
        else "starts from random weights"
    )
    network = f"{event['model']} with {blocks}, {event['parameters']:,} parameters, {start}"
    many = f", {event['processes']} processes" if event["processes"] > 1 else ""
    length = (
        f"{event['steps']:,} step{'s' * (event['steps'] != 1)} in {event['epochs']:,}"
        f" epoch{'s' * (event['epochs'] != 1)}"
    )
    return [
        f"{network}; {event['data']}: {images_words(event)}, {event['classes']:,} classes",
        f"{computes_words(event)}{many}; {length}",
    ]


class Progress:
    """A callable for ``on_event``, and a context in which bars live."""

    def __init__(self) -> None:
        self.console = Terminal(error=True)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        ]
        self.bars = Bars(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        self.tasks: dict[str, TaskID] = {}
        self.prefix = ""
        self.told = time.monotonic()
        self.waiting = False
        self.notes: set[str] = set()

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def line(self, text: str) -> None:
        self.bars.console.print(text, soft_wrap=True)

    def bar(self, name: str, done: float, total: float, note: str = "") -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(printable(name), total=total, note="")
        self.bars.update(self.tasks[name], completed=done, total=total, note=printable(note))

    def drop(self, name: str) -> None:
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))

    def __call__(self, event: dict[str, Any]) -> None:
        draw = getattr(self, f"on_{event['event']}", None)
        if draw is not None:
            draw(event)

    def on_data(self, event: dict[str, Any]) -> None:
        self.bar(event["what"], event["done"], event["total"])
        if event["done"] >= event["total"]:
            self.drop(event["what"])

    def on_start(self, event: dict[str, Any]) -> None:
        """A study has said it for all its runs."""
        for line in () if self.prefix else start_lines(event):
            self.line(line)

    def on_run(self, event: dict[str, Any]) -> None:
        self.prefix = (
            f"run {event['index'] + 1}/{event['runs']}  {event['arm']}  seed {event['seed']}"
        )
        self.bar("runs", event["index"], event["runs"])
        self.drop("steps")

    def on_step(self, event: dict[str, Any]) -> None:
        note = (
            f"{self.prefix}  loss {event['loss']:.3f}  lr {event['lr']:.3g} "
            f" {event['images_per_s']:.0f} images/s"
        )
        self.bar("steps", event["step"], event["steps"], note)
        if self.bars.disable and time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            minutes = event["seconds_left"] / 60
            self.line(
                f"{note.strip()}  step {event['step']}/{event['steps']}  {minutes:.0f} minutes left"
            )

    def on_note(self, event: dict[str, Any]) -> None:
        """What was decided about a network and its weights is the same for many runs, and is said
        once.
        """
        if event["text"] not in self.notes:
            self.notes.add(event["text"])
            self.line(event["text"])

    def on_spike(self, event: dict[str, Any]) -> None:
        self.line(
            f"{self.head}loss {event['loss']:.3f} at step {event['step']}, where"
            f" {event['usual']:.3f} was usual"
        )

    @property
    def head(self) -> str:
        return f"{self.prefix}  " if self.prefix else ""

    def on_epoch(self, event: dict[str, Any]) -> None:
        if self.bars.disable:
            self.line(
                f"{self.head}epoch {event['epoch']}/{event['epochs']}  loss"
                f" {event['train_loss']:.4f}  top-1 {100 * event['top1']:.2f} %"
            )

    def on_resumed(self, event: dict[str, Any]) -> None:
        for warning in event["warnings"]:
            self.line(f"warning: {warning}")
        self.line(f"{self.head}continues after step {event['step']} of {event['steps']}")

    def on_finished(self, event: dict[str, Any]) -> None:
        self.drop("steps")
        how = "was finished before" if event["read"] else f"{event['seconds']:.1f} s"
        self.line(f"{self.prefix}  top-1 {100 * event['top1']:.2f} %  {how}")

    def on_diverged(self, event: dict[str, Any]) -> None:
        self.drop("steps")
        self.line(f"{self.prefix}  diverged: {event['error']}")

    def on_failed(self, event: dict[str, Any]) -> None:
        self.drop("steps")
        self.line(f"{self.prefix}  failed: {event['error']}")

    def on_kept(self, event: dict[str, Any]) -> None:
        self.line(f"{self.prefix}  had {event['status']} before: {event['error']}")

    def on_died(self, event: dict[str, Any]) -> None:
        self.line(f"{self.prefix}  its worker died: {event['error']}")

    def on_renewed(self, event: dict[str, Any]) -> None:
        self.line(f"warning: {event['error']}; it is written anew")

    def on_waiting(self, event: dict[str, Any]) -> None:
        if not self.waiting:
            left = "the run that is" if event["runs"] == 1 else f"the {event['runs']} runs that are"
            self.line(f"another process is at {left} left; waiting for it")
        self.waiting = True

    def on_plan(self, event: dict[str, Any]) -> None:
        for line in plan_lines(event):
            self.line(line)

    def on_latency(self, event: dict[str, Any]) -> None:
        self.drop("runs")
        self.line("measuring latency")
