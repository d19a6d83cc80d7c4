"""Counts what a study reports: runs done, running and failed, and the time that is left."""

from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from cpsam.report.values import duration


@dataclass
class Running:
    """A run that has not ended.

    Attributes:
        arm: The name of its arm.
        seed: Its seed.
        words: What it reported last.
        done: The fraction of its steps that is done.
    """

    arm: str
    seed: int
    words: str = ""
    done: float = 0.0

    def take(self, event: dict[str, Any]) -> None:
        if event["event"] not in ("step", "epoch"):
            return
        epoch = f"epoch {event['epoch']} of {event['epochs']}"
        if event["event"] == "step":
            self.done = event["step"] / event["steps"]
            pace = f"loss {event['loss']:.3f}  {event['images_per_s']:.0f} images/s"
            self.words = f"{epoch}  {pace}"
        else:
            self.words = f"{epoch}  top-1 {100 * event['top1']:.2f} %"


@dataclass
class StudyProgress:
    """Takes events with their time; draws nothing.

    Attributes:
        runs: Runs of the study.
        measuring: Whether the report is measured, after the runs.
        started: When the first run began.
        trained: Runs that ended since then.
        read: Runs that had ended before.
        running: Runs that have not ended, by the name of their folder.
        top1: The results of each arm.
        broken: How many runs of each arm broke off.
    """

    runs: int = 0
    measuring: bool = False
    started: float | None = None
    trained: int = 0
    read: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    top1: dict[str, list[float]] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)

    def take(self, event: dict[str, Any], now: float) -> None:
        kind, run = event["event"], event.get("run", "")
        if kind == "plan":
            self.runs = event["runs"]
        elif kind == "latency":
            self.measuring = True
        elif kind == "run":
            self.started = now if self.started is None else self.started
            self.running[run] = Running(event["arm"], event["seed"])
            self.top1.setdefault(event["arm"], [])
        elif kind == "died":
            self.running.pop(run, None)
        elif kind in ("finished", "diverged", "failed", "kept"):
            self.take_end(event)
        elif run in self.running:
            self.running[run].take(event)

    def take_end(self, event: dict[str, Any]) -> None:
        self.running.pop(event.get("run", ""), None)
        if event.get("read", event["event"] == "kept"):
            self.read += 1
        else:
            self.trained += 1
        if event["event"] == "finished":
            self.top1[event["arm"]].append(event["top1"])
        else:
            self.broken[event["arm"]] = self.broken.get(event["arm"], 0) + 1

    @property
    def ended(self) -> int:
        return self.trained + self.read

    @property
    def failed(self) -> int:
        return sum(self.broken.values())

    def seconds_left(self, now: float) -> float | None:
        """Returns an estimate from the pace so far; None before there is one."""
        done = self.trained + sum(running.done for running in self.running.values())
        if self.started is None or done < 0.02:
            return None
        return (now - self.started) / done * (self.runs - self.read - done)

    def line(self, now: float) -> str:
        """Returns ``12 of 39 runs done, 2 running, 1 failed, about 1 h 3 min left``."""
        done = f"{self.ended - self.failed} of {self.runs} runs done"
        parts = [done, f"{len(self.running)} running"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        left = self.seconds_left(now)
        if left is not None and self.ended < self.runs:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Returns the name, the runs done, the runs that broke off and the top-1 of each arm."""
        return [
            (arm, str(len(values)), str(self.broken.get(arm, 0)), top1_words(values))
            for arm, values in self.top1.items()
        ]


def top1_words(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}" if values else ""
