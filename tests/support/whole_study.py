"""Results of a whole study, with several settings, contrasts, curves and a run that broke off."""

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


@cache
def whole_study() -> Results:
    return changed()


def changed(**changes: Any) -> Results:
    """Returns the results with these changes of their JSON."""
    return Results.from_json(whole_content() | changes)


@cache
def whole_content() -> dict[str, Any]:
    """Returns the content of a `results.json`."""
    draw, arms, top1 = np.random.default_rng(0), [], {}
    for setting, means in ARMS.items():
        for index, (name, mean) in enumerate(means.items()):
            runs = []
            for seed in SEEDS:
                curve = [mean * part for part in (0.4, 0.8)] + [mean + float(draw.normal(0, 0.003))]
                run = {
                    "seed": seed,
                    "folder": f"{name}-{seed}-{setting}",
                    "status": "done",
                    "error": None,
                    "top5": 0.8,
                    "loss": 1.5,
                }
                run |= {"top1": curve[-1], "curve": {"top1": curve, "train_loss": [3.0, 2.0, 1.0]}}
                if (setting, name, seed) == BROKEN:
                    run |= {
                        "status": "diverged",
                        "error": "the loss is nan",
                        "top1": None,
                        "top5": None,
                        "loss": None,
                    }
                    run["curve"] = {"top1": curve[:2], "train_loss": [3.0, 2.0]}
                runs.append(run)
            top1[setting, name] = {
                run["seed"]: run["top1"] for run in runs if run["status"] == "done"
            }
            arm = {
                "name": f"{name} @ {setting}",
                "arm": name,
                "setting": setting,
                "attention": name,
                "arguments": {},
                "recipe": {},
            }
            arm |= {
                "places": ["layer3.1"],
                "parameters": 1000 + 37 * index,
                "parameters_added": 37 * index,
                "macs": 9000 + index,
            }
            arms.append(
                arm
                | {
                    "macs_added": index,
                    "runs": runs,
                    "top1": asdict(summarize(top1[setting, name].values())),
                }
            )
    for arm in arms:
        mine = top1[arm["setting"], arm["arm"]]
        arm["difference"] = {}
        for reference in ("none", "non_local"):
            other = top1.get((arm["setting"], reference)) if reference != arm["arm"] else None
            arm["difference"][f"{reference} @ {arm['setting']}"] = (
                asdict(paired_difference(mine, other)) if other else None
            )
    contrasts = [contrast(top1, "late", "non_local")]
    contrasts += [
        contrast(top1, setting, name)
        for setting in ARMS
        for name in ARMS[setting]
        if name not in ("cpsam", "non_local")
    ]
    adjusted = holm([each["p"] for each in contrasts[1:]])
    for each, p in zip(contrasts, [None, *adjusted], strict=True):
        each |= {"p_holm": p, "primary": p is None}
    data = {
        "name": "cifar100",
        "note": "A note.",
        "measured_on": "validation split",
        "train_images": 45,
        "test_images": 5,
        "classes": 3,
    }
    data["fingerprint"] = "4be1"
    times = {arm["name"]: clock(index) for index, arm in enumerate(arms)}
    plan = {"primary": ["cpsam", "non_local", "late"], "contrasts": [], "budget": "epochs"}
    plans = [plan | {"seeds": [4, 1, 7], "runs": ["a", "b"], "ended_before": 0}]
    plans += [plan | {"seeds": list(SEEDS), "runs": ["a", "b", "c"], "ended_before": 2}]
    return {
        "schema": 1,
        "command": "cpsam study plan.toml",
        "name": "blocks",
        "data": data,
        "model": "resnet20",
        "at": ["layer3.*"],
        "settings": [
            {"name": name, "data": data, "model": "resnet20", "at": [name]} for name in ARMS
        ],
        "recipe": {"epochs": 3},
        "budget": "epochs",
        "seeds": list(SEEDS),
        "primary": ["cpsam @ late", "non_local @ late"],
        "contrasts": contrasts,
        "arms": arms,
        "notes": ["late: conv_control has 37 parameters."],
        "warnings": [
            "eca in every-branch differs from the others in more than its block: lr 0.2 instead of"
            " 0.1."
        ],
        "environment": {"processor": "x", "threads": 1},
        "timing": {
            "arms": times,
            "batch_size": 64,
            "memory_batch_size": 16,
            "total_seconds": 7000.0,
        },
        "plans": plans,
    }


def clock(index: int) -> dict[str, Any]:
    latency = {"median": 20.0 + index, "q1": 19.0 + index, "q3": 22.0 + index, "n": 20}
    return {
        "latency_ms": latency,
        "peak_memory_bytes": (100 + 9 * index) * 2**20,
        "train_seconds": [1.0] * len(SEEDS),
    }


def contrast(
    top1: dict[tuple[str, str], dict[int, float]], setting: str, name: str
) -> dict[str, Any]:
    one, other = top1[setting, "cpsam"], top1[setting, name]
    record = {"arm": f"cpsam @ {setting}", "reference": f"{name} @ {setting}", "setting": setting}
    return record | asdict(paired_difference(one, other)) | asdict(evidence(one, other))
