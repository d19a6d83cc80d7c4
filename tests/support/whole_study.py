"""Results of a whole study, with several settings, contrasts, curves and a run that broke off."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np

from cpsam.report.results import Results
from cpsam.statistics import evidence, holm, paired_difference, summarize

ARMS = {
    "late": {
        "none": 0.55,
        "conv_control": 0.56,
        "non_local": 0.552,
        "global_context_wide": 0.567,
        "cpsam": 0.571,
    },
    "every-branch": {
        "none": 0.55,
        "norm_only": 0.556,
        "squeeze_excite": 0.569,
        "eca": 0.561,
        "cpsam": 0.566,
    },
}
SEEDS = (4, 1, 7, 0, 2, 9, 11)
BROKEN = ("late", "global_context_wide", 7)
DATA = {
    "name": "cifar100",
    "note": "A note.",
    "measured_on": "validation split",
    "train_images": 45,
    "test_images": 5,
    "classes": 3,
    "fingerprint": "4be1",
}
FIELD = {"at": "layer3.2", "theoretical": [81, 81], "remote": False}

Top1 = Mapping[tuple[str, str], Mapping[int, float]]  # (setting, arm) -> seed -> top-1


@cache
def whole_study() -> Results:
    return changed()


def changed(**changes: Any) -> Results:
    """Returns the results with these changes of their JSON."""
    return Results.from_json(whole_content() | changes)


@cache
def whole_content() -> dict[str, Any]:
    """Returns the content of a `results.json`."""
    runs = make_runs()
    top1 = {
        key: {run["seed"]: run["top1"] for run in each if run["status"] == "done"}
        for key, each in runs.items()
    }
    plan = {"primary": ["cpsam", "non_local", "late"], "contrasts": [], "budget": "epochs"}
    warning = "eca in every-branch differs from the others in more than its block: lr 0.2 not 0.1."
    return {
        "command": "cpsam study plan.toml",
        "schema": 1,
        "name": "blocks",
        "data": DATA,
        "model": "resnet20",
        "at": ["late"],
        "settings": [
            {
                **{"name": name, "data": DATA, "model": "resnet20", "at": [name]},
                "receptive_fields": {"image_size": [32, 32], "places": [FIELD]},
            }
            for name in ARMS
        ],
        "recipe": {"epochs": 3},
        "budget": "epochs",
        "seeds": list(SEEDS),
        "primary": ["cpsam @ late", "non_local @ late"],
        "contrasts": make_contrasts(top1),
        "arms": [make_arm(setting, name, runs[setting, name], top1) for setting, name in runs],
        "notes": ["late: conv_control has 37 parameters."],
        "warnings": [warning],
        "environment": {"processor": "x", "threads": 1},
        "timing": {
            "arms": {
                f"{name} @ {setting}": make_timing(index)
                for index, (setting, name) in enumerate(runs)
            },
            "batch_size": 64,
            "memory_batch_size": 16,
            "total_seconds": 7000.0,
        },
        "plans": [
            plan | {"seeds": [4, 1, 7], "runs": ["a", "b"], "ended_before": 0},
            plan | {"seeds": list(SEEDS), "runs": ["a", "b", "c"], "ended_before": 2},
        ],
    }


def make_runs() -> dict[tuple[str, str], list[dict[str, Any]]]:
    draw = np.random.default_rng(0)
    return {
        (setting, name): [
            make_run(setting, name, seed, [0.4 * mean, 0.8 * mean, mean + draw.normal(0, 0.003)])
            for seed in SEEDS
        ]
        for setting, means in ARMS.items()
        for name, mean in means.items()
    }


def make_run(setting: str, name: str, seed: int, curve: list[float]) -> dict[str, Any]:
    run = {"seed": seed, "folder": f"{name}-{seed}-{setting}", "status": "done", "error": None}
    if (setting, name, seed) == BROKEN:
        run |= {"status": "diverged", "error": "the loss is nan"}
        run |= dict.fromkeys(("top1", "top5", "loss"))
        return run | {"curve": {"top1": curve[:2], "train_loss": [3.0, 2.0]}}
    run |= {"top1": curve[-1], "top5": 0.8, "loss": 1.5}
    return run | {"curve": {"top1": curve, "train_loss": [3.0, 2.0, 1.0]}}


def make_arm(setting: str, name: str, runs: list[dict[str, Any]], top1: Top1) -> dict[str, Any]:
    index, mine, difference = list(ARMS[setting]).index(name), top1[setting, name], {}
    for reference in ("none", "non_local"):
        other = top1.get((setting, reference)) if reference != name else None
        paired = asdict(paired_difference(mine, other)) if other else None
        difference[f"{reference} @ {setting}"] = paired
    return {
        "name": f"{name} @ {setting}",
        "arm": name,
        "setting": setting,
        "attention": name,
        "arguments": {},
        "recipe": {},
        "places": ["layer3.1"],
        "parameters": 1000 + 37 * index,
        "parameters_added": 37 * index,
        "macs": 9000 + index,
        "macs_added": index,
        "runs": runs,
        "top1": asdict(summarize(mine.values())),
        "difference": difference,
    }


def make_timing(index: int) -> dict[str, Any]:
    latency = {"median": 20.0 + index, "q1": 19.0 + index, "q3": 22.0 + index, "n": 20}
    memory = (100 + 9 * index) * 2**20
    seconds = [1.0] * len(SEEDS)
    return {"latency_ms": latency, "peak_memory_bytes": memory, "train_seconds": seconds}


def make_contrasts(top1: Top1) -> list[dict[str, Any]]:
    others = [key for key in top1 if key[1] not in ("cpsam", "non_local")]
    contrasts = [make_contrast(top1, *key) for key in [("late", "non_local"), *others]]
    adjusted = holm([each["p"] for each in contrasts[1:]])
    return [
        each | {"p_holm": p, "primary": p is None}
        for each, p in zip(contrasts, [None, *adjusted], strict=True)
    ]


def make_contrast(top1: Top1, setting: str, name: str) -> dict[str, Any]:
    one, other = top1[setting, "cpsam"], top1[setting, name]
    record = {"arm": f"cpsam @ {setting}", "reference": f"{name} @ {setting}", "setting": setting}
    return record | asdict(paired_difference(one, other)) | asdict(evidence(one, other))
