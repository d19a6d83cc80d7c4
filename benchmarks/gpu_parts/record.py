"""Measures the parts, and keeps one JSON record of them that is whole after every part."""

import gc
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cpsam.config.recipe import Recipe
from cpsam.train.compute import choose_compute
from cpsam.train.environment import environment
from gpu_parts.data import Found
from gpu_parts.part import Outcome, Part, measure_parts
from gpu_parts.targets import judge, lines


def describe(device: str) -> dict[str, Any]:
    """Returns where the record was made: what runs store, and facts about the GPU."""
    about = environment(choose_compute(Recipe(), device), torch.device(device))
    if device == "cpu":
        return about
    properties = torch.cuda.get_device_properties(device)
    return {
        **about,
        "cuda": torch.version.cuda,
        "gpu_memory_bytes": properties.total_memory,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
    }


def measure_and_record(
    parts: Sequence[Part], out: Path, *, device: str, found: Found, started: float, seconds: float
) -> Outcome:
    """Measures the parts, and prints one line per part, then the targets that were missed.

    Args:
        parts: The most important ones first.
        out: The file of the record.
        device: "cpu" or "cuda".
        found: What data the parts use.
        started: When the first of the seconds began.
        seconds: How long everything may take.
    """
    about = {"schema": 1, "data": found.describe(), "environment": describe(device)}

    def write(outcome: Outcome) -> None:
        spent = round(time.perf_counter() - started, 1)
        targets = judge(outcome.parts, found.name)
        timing = {"budget": seconds, "seconds": spent, "targets": targets, **asdict(outcome)}
        out.write_text(json.dumps({**about, "timing": timing}, indent=1) + "\n")

    def on_part(part: Part, ended: str, outcome: Outcome) -> None:
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without a GPU
        print(f"{time.perf_counter() - started:5.0f} s  {part.name}: {ended}", flush=True)
        write(outcome)

    outcome = measure_parts(parts, seconds - (time.perf_counter() - started), on_part)
    print(*lines(judge(outcome.parts, found.name)), sep="\n")
    measured, skipped, failed = map(len, (outcome.parts, outcome.skipped, outcome.failed))
    print(f"{out}: {measured} parts measured, {skipped} skipped, {failed} failed")
    return outcome
