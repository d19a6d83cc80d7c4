"""``cpsam train``: one network, with or without attention, in a run folder of its own."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from cpsam.cli.parse import parse
from cpsam.cli.progress import Progress
from cpsam.errors import UserError
from cpsam.study.config import Task
from cpsam.train.recipe import Recipe


@dataclass(frozen=True)
class TrainRequest:
    out: Path
    """The run folder. One that holds this very run is continued or read; any other is refused."""
    task: Task = field(default_factory=Task)
    attention: str = "cpsam"
    """The block, with arguments if wanted, as in cpsam:fusion=sum,reduction=8; none for the bare network."""
    seed: int = 0
    """Seed of everything that is drawn."""
    recipe: Recipe = field(default_factory=Recipe)
    threads: int = 0
    """Threads, part of the run's specification. 0: as many as torch takes."""
    json: bool = False
    """Print the summary as JSON."""

    def __post_init__(self) -> None:
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be at least 0; got {getattr(self, name)}")


def run(words: list[str]) -> None:
    asked = parse(TrainRequest, "train", words, "Train one network; the same command continues it after an interruption.")
    from cpsam.study.run import train_one

    with Progress() as progress:
        summary = train_one(asked.task, asked.attention, asked.recipe, asked.seed, asked.threads, asked.out, progress)
    if asked.json:
        print(json.dumps(summary, indent=1))
    else:
        print(f"top-1 {100 * summary['top1']:.2f} %  top-5 {100 * summary['top5']:.2f} %  loss {summary['loss']:.4f}  in {asked.out}")
