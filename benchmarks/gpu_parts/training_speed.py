"""How many images per second our loop trains, in every way that it has, and others' scripts.

A new way of our loop is one more line in `OURS`. Its rate is the sum over several networks if its
name begins with "at_once".
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import plain_script
import torch
from timm_script import timm_script

from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.data import Dataset
from cpsam.models import create_model
from cpsam.train.train import train
from gpu_parts.interleaved import ratios, spread
from gpu_parts.part import NotHereError
from gpu_parts.sizes import Sizes


@dataclass(frozen=True)
class Task:
    """Says what is trained, for all ways alike."""

    dataset: Dataset
    sizes: Sizes
    device: str
    attention: str
    batch: int
    timm: Path | None

    def model(self) -> torch.nn.Module:
        return create_model(
            self.sizes.model,
            self.dataset.num_classes,
            in_channels=self.dataset.in_channels,
            attention=self.attention,
            seed=0,
        )


# Returns images per second, and the peak of memory in bytes if that is not of this process.
Measure = Callable[[], tuple[float, int | None]]
# Prepares a way; what must be ended afterwards goes on the stack.
Way = Callable[[Task, ExitStack], Measure]


def our_loop(options: RunOptions) -> Way:
    """Returns the way that is :func:`cpsam.train.train.train` itself with some options.

    The first epoch warms up. Evaluation and checkpoints are between the epochs and do not count.
    """

    def prepare(task: Task, stack: ExitStack) -> Measure:
        images, batch, epochs = task.sizes.images, task.batch, task.sizes.epochs
        count = min(images, len(task.dataset.train)) // batch * batch
        part = replace(
            task.dataset,
            train=task.dataset.train.subset(np.arange(count)),
            evaluation=task.dataset.evaluation.subset(np.arange(batch)),
        )
        recipe = Recipe(epochs=1 + epochs, batch_size=batch)

        def measure() -> tuple[float, None]:
            seconds: list[float] = []

            def on_event(event: Any) -> None:
                if event["event"] == "epoch":
                    seconds.append(event["timing"]["train_seconds"])

            with tempfile.TemporaryDirectory() as folder:
                train(
                    task.model(),
                    part,
                    recipe,
                    seed=0,
                    folder=folder,
                    config={},
                    on_event=on_event,
                    device=task.device,
                    options=options,
                )
            return count * epochs / sum(seconds[1:]), None

        return measure

    return prepare


def plain(fast: bool) -> Way:
    """Returns the way of `plain_script.py`."""

    def prepare(task: Task, stack: ExitStack) -> Measure:
        sizes = task.sizes
        progress = plain_script.train(
            task.model(),
            plain_script.Arrays(task.dataset),
            epochs=10**6,
            fast=fast,
            batch_size=task.batch,
            workers=sizes.workers,
            device=task.device,
        )
        stack.callback(progress.close)

        def measure() -> tuple[float, None]:
            with redirect_stdout(sys.stderr):  # the script prints its loss
                for _ in islice(progress, sizes.warmup):  # uses up the batches that lie ready
                    pass
                started = time.perf_counter()
                images = sum(islice(progress, sizes.steps))
                return images / (time.perf_counter() - started), None

        return measure

    return prepare


def timm(task: Task, stack: ExitStack) -> Measure:
    """Prepares timm's own script, which runs in a process of its own."""
    if task.timm is None:
        raise NotHereError("no --timm TRAIN.py was given")
    if task.dataset.name != "cifar100":
        raise NotHereError("timm's script is measured on CIFAR-100 alone")
    return stack.enter_context(
        timm_script(
            task.timm,
            task.dataset,
            steps=task.sizes.steps,
            warmup=task.sizes.warmup,
            batch=task.batch,
            threads=1,
            workers=max(1, task.sizes.workers),
            device=task.device,
        )
    )


OURS: dict[str, Way] = {"eager": our_loop(RunOptions())}
SCRIPTS: dict[str, Way] = {"plain_script": plain(fast=False), "plain_script_fast": plain(fast=True)}
TIMM: dict[str, Way] = {"timm_script": timm}


def fastest(speeds: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Returns the best of the ways that train one network, and of those that train several."""
    best: dict[str, dict[str, float]] = {}
    for name, speed in speeds.items():
        kind = "several at once" if name.startswith("at_once") else "one network"
        best[kind] = max(speed, best.get(kind, speed), key=lambda each: each["median"])
    return best


def measure(left: float, *, task: Task, others: dict[str, Way], rounds: int) -> dict[str, Any]:
    """Returns images per second and peak memory of our ways and others, and their ratios."""
    rates: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    on_gpu = task.device != "cpu"
    with ExitStack() as stack:
        ways = {name: way(task, stack) for name, way in (OURS | others).items()}
        for _ in range(rounds):
            for name, way in ways.items():
                if on_gpu:
                    gc.collect()
                    torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() if on_gpu else 0
                rate, peak = way()
                rates.setdefault(name, []).append(rate)
                if on_gpu:
                    own = torch.cuda.max_memory_allocated() - before
                    peaks[name] = own if peak is None else peak
    pairs = [(one, other) for one in OURS for other in ways if one != other]
    speeds = {name: spread(found) for name, found in rates.items()}
    words = ", ".join(f"{name} {speed['median']:,.0f}" for name, speed in speeds.items())
    return {
        "summary": f"images/s: {words}",
        "images_per_s": speeds,
        "fastest": fastest({name: speeds[name] for name in OURS}),
        "ratios": ratios(rates, pairs),
        "peak_memory_bytes": peaks,
    }
