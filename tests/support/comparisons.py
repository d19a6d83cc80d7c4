"""Results of small comparisons, as an early version wrote them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cpsam.report.results import Results
from cpsam.statistics import paired_difference, summarize

Top1 = Mapping[str, dict[int, float | None]]  # arm -> seed -> value, None for a run that diverged

TOP1 = {
    "none": [0.901, 0.905, 0.903],
    "conv_control": [0.911, 0.913, 0.909],
    "non_local": [0.905, 0.912, 0.908],
    "cpsam": [0.915, 0.921, 0.919],
}
COSTS = {
    "none": (0, 0),
    "conv_control": (2340, 580_000),
    "non_local": (83_648, 5_300_000),
    "cpsam": (2362, 210_000),
}


def comparison(top1: Top1 | None = None, **changes: object) -> Results:
    """Returns the results of a comparison with these changes of their JSON."""
    return Results.from_json(content_of(top1) | changes)


def content_of(top1: Top1 | None = None) -> dict[str, Any]:
    """Returns the content of an early `results.json`."""
    top1 = top1 or {name: dict(enumerate(values)) for name, values in TOP1.items()}
    latency = {"median": 12.34, "q1": 12.0, "q3": 13.0, "n": 20}
    versions = {"versions": {"torch": "2.14.1"}}
    return {
        "schema": 1,
        "command": "cpsam compare --data digits --seeds 0 1 2",
        "data": {
            "name": "digits",
            "note": "Easy, near its ceiling.",
            "train_images": 1437,
            "test_images": 360,
            "classes": 10,
            "fingerprint": "4be1",
        },
        "model": "resnet20",
        "at": ["before-last"],
        "recipe": {"epochs": 12, "channels_last": True},
        "seeds": sorted({seed for by_seed in top1.values() for seed in by_seed}),
        "primary": ["cpsam", "non_local"],
        "arms": [arm_content(name, top1) for name in top1],
        "environment": {**versions, "device": "cpu", "threads": 2, "commit": "a1b2c3d"},
        "notes": ["conv_control has 2,340 parameters, cpsam has 2,362."],
        "timing": {
            "arms": {name: {"latency_ms": latency, "train_seconds": [9.0]} for name in top1},
            "batch_size": 64,
            "total_seconds": 141.2,
        },
    }


def arm_content(name: str, top1: Top1) -> dict[str, Any]:
    parameters, macs = COSTS.get(name, (10, 10))
    mine, difference = finished(top1, name), {}
    for reference in ("none", "non_local"):
        other = finished(top1, reference)
        paired = name != reference and mine.keys() & other.keys()
        difference[reference] = asdict(paired_difference(mine, other)) if paired else None
    return {
        "name": name,
        "attention": name,
        "arguments": {"reduction": 16},
        "places": [] if name == "none" else ["layer3.1"],
        "parameters": 272_474 + parameters,
        "parameters_added": parameters,
        "macs": 40_810_000 + macs,
        "macs_added": macs,
        "runs": [run_content(name, seed, value) for seed, value in top1[name].items()],
        "top1": asdict(summarize(mine.values())),
        "difference": difference,
    }


def run_content(arm: str, seed: int, top1: float | None) -> dict[str, Any]:
    return {
        "seed": seed,
        "status": "diverged" if top1 is None else "done",
        "top1": top1,
        "top5": None,
        "loss": None,
        "folder": f"runs/{arm}-{seed}",
        "error": "the loss is nan at step 31" if top1 is None else None,
    }


def finished(top1: Top1, arm: str) -> dict[int, float]:
    return {seed: value for seed, value in top1.get(arm, {}).items() if value is not None}


VARIANTS = {
    "three seeds": comparison(),
    "one seed": comparison({name: {0: values[0]} for name, values in TOP1.items()}),
    "a run diverged": comparison(
        {
            name: {0: values[0], 1: None if name == "cpsam" else values[1], 2: values[2]}
            for name, values in TOP1.items()
        }
    ),
    "an arm all diverged": comparison(
        {"none": {0: 0.9, 1: 0.91}, "non_local": {0: 0.9, 1: 0.9}, "cpsam": {0: None, 1: None}}
    ),
    "nothing finished": comparison({name: {0: None} for name in TOP1}),
    "without non_local": comparison(
        {name: dict(enumerate(TOP1[name])) for name in ("none", "cpsam")}
    ),
    "one arm": comparison({"cpsam": dict(enumerate(TOP1["cpsam"]))}),
    "one arm, not finished": comparison({"none": {0: None}}, primary=["none", "(no other arm)"]),
    "all the same": comparison({name: {0: 1.0, 1: 1.0} for name in TOP1}),
    "many seeds": comparison(
        {
            name: {seed: values[seed % 3] + seed / 10_000 for seed in range(12)}
            for name, values in TOP1.items()
        }
    ),
    "without timing and notes": comparison(timing={}, notes=[]),
}
