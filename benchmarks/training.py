"""Images per second of training ResNet-20 on CIFAR-100: our loop against the bare step under it and
against the usual script.

    python benchmarks/training.py --data-root DATA [--timm TRAIN.py] > training.json

Five ways, or six, one after the other in every round of one run, so that whatever else the machine
does hits all of them; a ratio is taken within a round, then the median over the rounds. In images
per second:

- `bare_step`: forward, backward, optimizer on one constant batch, in the precision and memory
  format that our recipe settles on;
- `our_loop`: :func:`cpsam.train.train.train` itself, called anew in every round for one epoch of
  `--steps` batches, with order, augmentation, schedule, checks and progress events; without the
  evaluation and the checkpoint after the epoch, which are given apart;
- `our_loop_saving`: the same with a checkpoint after every step, so that its cost stands out of the
  noise; a real run makes one an epoch;
- `plain_script`: `plain_script.py` as people write it, float32;
- `plain_script_fast`: the same with bfloat16 autocast and channels_last;
- `timm_script`: timm's `train.py`, if its file is named, with its own bfloat16 and channels_last.

Two threads each. The scripts' two loader workers run beside their two threads, as they do for their
users.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import plain_script
import torch
import torch.nn.functional as F
from timm_script import timm_script

from cpsam.config.run_options import RunOptions
from cpsam.data import Dataset, load_dataset
from cpsam.data.batches import train_batches
from cpsam.evaluate import autocast
from cpsam.models import create_model
from cpsam.train import Recipe
from cpsam.train.compute import choose_compute
from cpsam.train.environment import environment
from cpsam.train.step import make_optimizer
from cpsam.train.train import train

BATCH, THREADS, WARMUP = 128, 2, 3
TARGETS = {
    ("our_loop", "bare_step"): 0.92,
    ("our_loop", "plain_script"): 2.2,
    ("our_loop", "plain_script_fast"): 1.1,
    ("our_loop", "timm_script"): 1.1,
}
CHECKPOINT_TARGET = 0.01  # of the time of an epoch, at most


def bare_step(dataset: Dataset, recipe: Recipe, steps: int) -> Callable[[], float]:
    compute = choose_compute(recipe, "cpu")
    model = create_model("resnet20", 100).to(memory_format=compute.memory_format).train()
    optimizer = make_optimizer(model, replace(recipe, lr=1e-3))
    x, y = next(
        train_batches(
            dataset, batch_size=BATCH, seed=0, epoch=0, channels_last=compute.channels_last
        )
    )

    def step() -> None:
        with autocast(compute.precision, x.device):
            logits = model(x)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    def measure() -> float:
        for _ in range(WARMUP):
            step()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return BATCH * steps / (time.perf_counter() - started)

    return measure


def our_loop(
    dataset: Dataset, recipe: Recipe, steps: int, shares: list[float], options: RunOptions
) -> Callable[[], float]:
    part = replace(
        dataset,
        train=dataset.train.subset(np.arange(BATCH * steps)),
        evaluation=dataset.evaluation.subset(np.arange(BATCH)),
    )

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            keywords = {
                "folder": folder,
                "config": {},
                "on_event": json.dumps,
                "device": "cpu",
                "options": options,
            }
            summary = train(create_model("resnet20", 100), part, recipe, seed=0, **keywords)
            spent = time.perf_counter() - started
        timing = summary["timing"]
        shares.append(spent - timing["train_seconds"] - timing["evaluation_seconds"])
        return timing["images_per_s"]

    return measure


def script(arrays: plain_script.Arrays, steps: int, fast: bool) -> Callable[[], float]:
    progress: Iterator[int] = plain_script.train(
        create_model("resnet20", 100), arrays, epochs=10**6, fast=fast
    )

    def measure() -> float:
        with redirect_stdout(sys.stderr):  # the script prints its loss
            # Its workers went on while others were measured, so the batches that lie ready are used
            # up first.
            for _ in islice(progress, 2 * WARMUP):
                pass
            started = time.perf_counter()
            images = sum(islice(progress, steps))
            return images / (time.perf_counter() - started)

    return measure


def spread(values: list[float], digits: int) -> dict[str, Any]:
    """Median, quartiles and extremes."""
    quartiles = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    names = ("lower_quartile", "median", "upper_quartile")
    return {name: round(q, digits) for name, q in zip(names, quartiles, strict=True)} | {
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def run(rounds: int, steps: int, root: Path | None, timm: Path | None) -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    dataset = load_dataset("cifar100", root)
    arrays = plain_script.Arrays(dataset)
    recipe = Recipe(epochs=1, batch_size=BATCH)
    outside: list[float] = []
    ways = {
        "bare_step": bare_step(dataset, recipe, steps),
        "our_loop": our_loop(dataset, recipe, steps, outside, RunOptions()),
        "our_loop_saving": our_loop(dataset, recipe, steps, [], RunOptions(checkpoint_steps=1)),
        "plain_script": script(arrays, steps, fast=False),
        "plain_script_fast": script(arrays, steps, fast=True),
    }
    with ExitStack() as stack:
        if timm is not None:
            options = {"steps": steps, "warmup": 2 * WARMUP, "batch": BATCH, "threads": THREADS}
            measure = stack.enter_context(timm_script(timm, dataset, **options))
            ways["timm_script"] = lambda: measure()[0]
        return compare(ways, rounds, steps, len(dataset.train), recipe, outside)


def compare(
    ways: dict[str, Callable[[], float]],
    rounds: int,
    steps: int,
    images: int,
    recipe: Recipe,
    outside: list[float],
) -> dict[str, Any]:
    """Measure all ways in turn; `images` are in an epoch."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    load = [os.getloadavg()[0]]
    for _ in range(rounds):
        for name, measure in ways.items():
            seen[name].append(measure())
        load.append(os.getloadavg()[0])
    ratios = {}
    for (ours, other), target in TARGETS.items():
        if other not in seen:
            continue
        values = [a / b for a, b in zip(seen[ours], seen[other], strict=True)]
        ratios[f"{ours} / {other}"] = {"target": target, **spread(values, 3)}
    saved = [
        BATCH * (1 / slow - 1 / fast)
        for slow, fast in zip(seen["our_loop_saving"], seen["our_loop"], strict=True)
    ]
    shares = [
        seconds / (images / fast) for seconds, fast in zip(saved, seen["our_loop"], strict=True)
    ]
    return {
        "schema": 1,
        "model": "resnet20",
        "batch_size": BATCH,
        "rounds": rounds,
        "steps": steps,
        "environment": environment(choose_compute(recipe, "cpu"), torch.device("cpu")),
        "timing": {
            "images_per_s": {name: spread(values, 1) for name, values in seen.items()},
            "ratios": ratios,
            "milliseconds_of_a_checkpoint": spread([1000 * seconds for seconds in saved], 2),
            "share_of_a_checkpoint_in_an_epoch": {"target": CHECKPOINT_TARGET, **spread(shares, 6)},
            "seconds_outside_training_and_evaluation": spread(outside, 3),
            "load_average": {"before": round(load[0], 2), "highest": round(max(load), 2)},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed, as JSON on standard output.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--data-root", type=Path, help="folder of data sets; default: CPSAM_DATA")
    parser.add_argument(
        "--timm",
        type=Path,
        metavar="FILE",
        help="train.py of timm's repository, to be measured too",
    )
    asked = parser.parse_args()
    print(json.dumps(run(asked.rounds, asked.steps, asked.data_root, asked.timm), indent=1))


if __name__ == "__main__":
    main()
