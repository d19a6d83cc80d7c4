"""Where a study stands, kept from what it reports: runs done, running and failed, what each arm has
reached, and how long it will take.
"""

from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from cpsam.report.words import duration


@dataclass
class Running:
    """A run under way: `done` is its share, from 0 to 1."""

    arm: str
    seed: int
    words: str = ""
    done: float = 0.0


@dataclass
class Board:
    """Takes events and the time; draws nothing."""

    runs: int = 0
    # for the report, after the runs, of which those that ended before may not have been told
    measuring: bool = False
    started: float | None = None
    made: int = 0  # ended since `started`, not read
    read: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    top1: dict[str, list[float]] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

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
            self.running.pop(run, None)
            old = event.get("read", kind == "kept")
            self.read, self.made = self.read + old, self.made + (not old)
            if kind == "finished":
                self.top1[event["arm"]].append(event["top1"])
            else:
                self.broken[event["arm"]] = self.broken.get(event["arm"], 0) + 1
        elif run in self.running:
            self.progress(self.running[run], event)

    def progress(self, running: Running, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            running.done = event["step"] / event["steps"]
            pace = f"loss {event['loss']:.3f}  {event['images_per_s']:.0f} images/s"
            running.words = f"epoch {event['epoch']} of {event['epochs']}  {pace}"
        elif event["event"] == "epoch":
            running.words = (
                f"epoch {event['epoch']} of {event['epochs']}  top-1 {100 * event['top1']:.2f} %"
            )

    @property
    def ended(self) -> int:
        return self.made + self.read

    @property
    def failed(self) -> int:
        return sum(self.broken.values())

    def seconds_left(self, now: float) -> float | None:
        """From the pace so far; None before there is one."""
        done = self.made + sum(running.done for running in self.running.values())
        if self.started is None or done < 0.02:
            return None
        return (now - self.started) / done * (self.runs - self.read - done)

    def line(self, now: float) -> str:
        """``12 of 39 runs done, 2 running, 1 failed, about 1 h 3 min left``."""
        parts = [
            f"{self.ended - self.failed} of {self.runs} runs done",
            f"{len(self.running)} running",
        ]
        parts += [f"{self.failed} failed"] if self.failed else []
        left = self.seconds_left(now)
        parts += (
            [f"about {duration(left)} left"] if left is not None and self.ended < self.runs else []
        )
        return ", ".join(parts)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Arm, runs done, runs that broke off, and top-1 so far."""
        return [
            (arm, str(len(values)), str(self.broken.get(arm, 0)), top1_words(values))
            for arm, values in self.top1.items()
        ]


def top1_words(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}" if values else ""
