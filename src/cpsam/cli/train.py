"""``cpsam train``: train one network, with or without attention, in a run folder of its own."""

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpsam.cli.flags import build
from cpsam.cli.names import check_names
from cpsam.cli.preset import complete
from cpsam.cli.verb import Verb
from cpsam.config.presets import PRESETS
from cpsam.config.ranges import Seed, Threads
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.config.task import Task
from cpsam.errors import CpsamError
from cpsam.typed import check


@dataclass(frozen=True)
class TrainRequest:
    out: Path
    """The run folder. If it holds this run, it is continued or read. Another run is refused."""
    task: Task = field(default_factory=Task)
    attention: str = "cpsam"
    """The block, with or without arguments, as in cpsam:fusion=sum,reduction=8; none for the bare
    network.
    """
    seed: Seed = 0
    """Seed of everything that is drawn, from 0 to 2^63 - 1."""
    recipe: Recipe = field(default_factory=Recipe)
    threads: Threads = 0
    """Threads, part of the run's specification, from 1 to 1,024. 0: as many as torch takes."""
    preset: str = field(default="", metadata={"choices": PRESETS})
    """Take every flag that is not given from a preset: cued-digits, cifar100-200ep, cifar100-fast,
    imagenet-120ep or imagenet-finetune-40ep. Default: the one with the name of the data set, if
    there is one.
    """
    dry_run: bool = False
    """Print the steps, multiply-adds, time, memory and disk of the run; train nothing."""
    options: RunOptions = field(default_factory=RunOptions)
    json: bool = False
    """Print the summary as JSON."""

    def __post_init__(self) -> None:
        check(self)


VERB = Verb(
    "train",
    TrainRequest,
    "Train one network, with or without attention. The same command continues after an"
    " interruption.",
    {
        "CPSAM in a ResNet-20, on the embedded digits": (
            "cpsam train --data digits --attention cpsam --epochs 6 --out runs/first"
        ),
        "your images, in train/CLASS and val/CLASS": (
            "cpsam train --data folder --data-root photos --model timm/resnet18 --out runs/photos"
        ),
    },
    first=(
        "out",
        "data",
        "data_root",
        "model",
        "weights",
        "attention",
        "at",
        "epochs",
        "preset",
        "dry_run",
    ),
)


def run(words: list[str]) -> None:
    asked = build(TrainRequest, complete(VERB, words))
    check_names(asked.task, [asked.attention])
    if asked.dry_run:
        print_plan(asked)
        return
    from cpsam.progress import ProgressBars
    from cpsam.run.train_run import train_arm
    from cpsam.train.distributed import SHARED_ERROR
    from cpsam.train.launcher import process_group

    with (
        process_group(on_wait=report_wait) as distributed,
        ProgressBars() if distributed.is_main else nullcontext(silent) as progress,
    ):
        try:
            summary = train_arm(
                asked.task,
                asked.attention,
                asked.recipe,
                asked.seed,
                asked.threads,
                asked.out,
                progress,
                options=asked.options,
                distributed=distributed,
            )
        except CpsamError as error:
            if SHARED_ERROR in getattr(error, "__notes__", ()):
                sys.exit(error.exit_code)
            raise
    if not distributed.is_main:
        return
    if asked.json:
        print(json.dumps(summary, indent=1))
    else:
        print(
            f"top-1 {100 * summary['top1']:.2f} %  top-5 {100 * summary['top5']:.2f} %  loss"
            f" {summary['loss']:.4f}  in {asked.out}"
        )


def report_wait(words: str) -> None:
    """Prints what this process waits for; every process does, as any may be the one that hangs."""
    print(f"cpsam: {words}", file=sys.stderr, flush=True)


def silent(event: dict[str, Any]) -> None:
    """Prints nothing: one process prints for all."""


def print_plan(asked: TrainRequest) -> None:
    from cpsam.progress import ProgressBars
    from cpsam.report.values import duration
    from cpsam.run.dry_run import dry_run

    with ProgressBars() as progress:
        plan = dry_run(
            asked.task, asked.attention, asked.recipe, asked.seed, asked.threads, progress
        )
    if asked.json:
        print(json.dumps(plan, indent=1))
        return
    for name, value in flat(plan["config"]):
        print(f"{name:28} {value}")
    data, memory = plan["data"], plan["memory_bytes"]
    print(
        f"\n{data['train']:,} images to train on, {data['test']:,} to measure on,"
        f" {data['classes']:,} classes  {data['note']}".rstrip()
    )
    print(
        f"{plan['parameters']:,} parameters, {plan['parameters_added']:,} of them added at"
        f" {', '.join(plan['places']) or 'no place'}"
    )
    print(f"{plan['macs']:,} multiply-adds per image, {plan['training_macs']:.3g} for the run")
    print(f"{plan['steps']:,} steps, {plan['steps_per_epoch']:,} per epoch")
    seconds = plan["timing"]["run_seconds"]
    print(
        f"about {duration(seconds)} on this machine, estimated from two timed steps, without the"
        " time to load images"
    )
    parts = ", ".join(f"{name.replace('_', ' ')} {size(value)}" for name, value in memory.items())
    print(f"{size(sum(memory.values()))} of memory, if one process takes the whole batch ({parts})")
    print(f"{size(plan['disk_bytes'])} of disk for the run folder")


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns nested names, joined by dots, with their values."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        rows += (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
        )
    return rows


def size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
