"""Compare arms over paired seeds: plan, run or read each run, put the numbers side by side."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cpsam.checkpoint import write_atomically
from cpsam.data import Dataset
from cpsam.errors import DivergedError, UserError
from cpsam.study.arm import Arm, missing_arguments, parse_arm
from cpsam.study.config import Comparison, Task
from cpsam.study.control import arm_parameters, match_parameters
from cpsam.study.cost import LATENCY_BATCH, Cost, cost_of, latencies
from cpsam.study.report import render_report
from cpsam.study.run import OnEvent, RunSpec, build_arm, execute, load_task
from cpsam.study.statistics import paired_difference, summarize
from cpsam.train.environment import environment
from cpsam.train.hardware import find_device, settle
from cpsam.train.run_folder import SUMMARY

# The primary contrast, by block; the first arm of each block stands for it.
PRIMARY = ("cpsam", "non_local")


def compare(comparison: Comparison, *, command: str = "", on_event: OnEvent = lambda event: None) -> dict[str, Any]:
    """Train each arm with each seed, and write the comparison beside the runs.

    Runs that are finished already are read, so the same call after an interruption continues it.

    Args:
        comparison: What to compare.
        command: The command line to print in the report.
        on_event: Called with what happens, as small dicts whose ``event`` names it: those of :func:`cpsam.train.loop.train`, and its own.

    Returns:
        The results as plain data; all that depends on the clock is under the one key ``timing``.

    Raises:
        UserError: If the configuration does not fit; nothing has been trained then.
        DataError: If data or weights are missing or damaged.
        StoppedError: If it was interrupted.
    """
    started = time.perf_counter()
    task, folder = comparison.task, comparison.folder
    threads = comparison.threads or torch.get_num_threads()
    arms = [parse_arm(text) for text in comparison.attention]
    dataset, weights_sha256 = load_task(task, on_event)
    arms, notes = complete_controls(arms, task, dataset)
    models = {arm.name: build_arm(task, arm, dataset, seed=0) for arm in arms}
    shape = (dataset.in_channels, *dataset.image_size)
    bare = cost_of(build_arm(task, Arm("none", "none"), dataset, seed=0), shape)
    costs = {name: cost_of(model, shape) for name, model in models.items()}

    # Seed by seed, so that a study that is stopped early is paired as far as it got.
    specs = [RunSpec.of(task, dataset, weights_sha256, arm, seed, comparison.recipe, threads) for seed in comparison.seeds for arm in arms]
    records: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for index, spec in enumerate(specs):
        on_event({"event": "run", "index": index, "runs": len(specs), "arm": spec.arm.name, "seed": spec.seed})
        records[spec.arm.name].append(run_or_read(spec, dataset, folder, on_event))

    primary = [next((arm.name for arm in arms if arm.attention == block), block) for block in PRIMARY]
    references = ["none", primary[1]]
    on_event({"event": "latency"})
    device = find_device()
    torch.set_num_threads(threads)
    setting = settle(comparison.recipe, device)
    results = {
        "schema": 1,
        "command": command,
        "data": describe_data(dataset, task),
        "model": task.model,
        "at": list(task.at),
        "recipe": comparison.recipe.to_dict(),
        "seeds": list(comparison.seeds),
        "primary": primary,
        "arms": [describe_arm(arm, costs[arm.name], bare, records, references) for arm in arms],
        "environment": environment(setting, device),
        "notes": notes,
        "timing": {
            "arms": {
                name: {"latency_ms": latency, "train_seconds": [run["timing"].get("train_seconds") for run in records[name]]}
                for name, latency in latencies(models, dataset, setting).items()
            },
            "batch_size": LATENCY_BATCH,
            "total_seconds": time.perf_counter() - started,
        },
    }
    for runs in records.values():
        for run in runs:
            del run["timing"]
    write_atomically(folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    write_atomically(folder / "report.html", render_report(results).encode())
    return results


def complete_controls(arms: list[Arm], task: Task, dataset: Dataset) -> tuple[list[Arm], list[str]]:
    """Give each parameter-matched control its width, that of the first CPSAM arm, and say how near it came."""
    target = next((arm for arm in arms if arm.attention == "cpsam"), Arm("cpsam", "cpsam"))
    completed, notes = [], []
    for arm in arms:
        missing = missing_arguments(arm.attention, arm.arguments)
        if arm.attention == "conv_control" and missing:
            widths = cost_of(build_arm(task, target, dataset, seed=0), (dataset.in_channels, *dataset.image_size)).widths
            arm = match_parameters(arm, target, widths)
            ours, theirs = arm_parameters(arm, widths), arm_parameters(target, widths)
            notes.append(f"{arm.name} has {ours:,} parameters, {target.name} has {theirs:,} ({(ours - theirs) / theirs:+.1%}).")
        elif missing:
            raise UserError(f"{arm.name} needs a value for {', '.join(missing)}, as in {arm.name}:{missing[0]}=...")
        completed.append(arm)
    return completed, notes


def run_or_read(spec: RunSpec, dataset: Dataset, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """The record of one run. A run that diverged has a record too: it stays in the table and is not repeated."""
    run = folder / spec.folder_name
    record = {"seed": spec.seed, "folder": spec.folder_name, "status": "done", "top1": None, "top5": None, "loss": None, "error": None}
    diverged = run / "diverged.json"
    if not diverged.exists():
        try:
            read = (run / SUMMARY).exists()
            summary = execute(spec, dataset, run, on_event)
            on_event({"event": "finished", "top1": summary["top1"], "read": read, "seconds": summary["timing"]["train_seconds"]})
            return record | {key: summary[key] for key in ("top1", "top5", "loss")} | {"timing": summary["timing"]}
        except DivergedError as error:
            write_atomically(diverged, json.dumps({"error": str(error)}).encode())
            on_event({"event": "diverged", "arm": spec.arm.name, "seed": spec.seed, "error": str(error)})
    return record | {"status": "diverged", "error": json.loads(diverged.read_bytes())["error"], "timing": {}}


def describe_data(dataset: Dataset, task: Task) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "note": dataset.note,
        "measured_on": "validation split" if task.validation else "test split",
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "classes": dataset.num_classes,
        "fingerprint": dataset.fingerprint,
    }


def describe_arm(arm: Arm, cost: Cost, bare: Cost, records: dict[str, list[dict[str, Any]]], references: list[str]) -> dict[str, Any]:
    top1 = {name: {run["seed"]: run["top1"] for run in runs if run["status"] == "done"} for name, runs in records.items()}
    differences = {}
    for reference in references:
        paired = arm.name != reference and reference in top1 and top1[arm.name].keys() & top1[reference].keys()
        differences[reference] = asdict(paired_difference(top1[arm.name], top1[reference])) if paired else None
    return {
        "name": arm.name,
        "attention": arm.attention,
        "arguments": dict(arm.arguments),
        "places": list(cost.places),
        "parameters": cost.parameters,
        "parameters_added": cost.parameters - bare.parameters,
        "macs": cost.macs,
        "macs_added": cost.macs - bare.macs,
        "runs": records[arm.name],
        "top1": asdict(summarize(top1[arm.name].values())),
        "difference": differences,
    }
