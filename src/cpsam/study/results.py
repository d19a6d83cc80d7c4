"""What a study found, as plain data: arms, differences, costs and every run, read from the folders of its runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cpsam.attention import CONTROLS
from cpsam.data import Dataset
from cpsam.errors import DataError
from cpsam.study.config import Contrast, Setting
from cpsam.study.job import outcome
from cpsam.study.plan import Plan, PlannedArm
from cpsam.study.run import RunSpec
from cpsam.study.statistics import evidence, holm, paired_difference, summarize
from cpsam.train.run_folder import ENVIRONMENT, METRICS, read_json

NO_MATTER = {"system", "cores", "resumed"}  # of an environment, what a result does not depend on

Top1 = Mapping[tuple[str, str], Mapping[int, float]]  # (setting, arm) -> seed -> value


def study_results(plan: Plan, folder: Path) -> dict[str, Any]:
    """All that a study knows but for what depends on the clock and the machine that measures.

    A run without an end has the status "missing"; it is in no mean, and neither is one that diverged or failed.
    """
    study = plan.study
    assert study.primary is not None
    records = {arm.key: [read_run(spec, folder) for spec in arm.specs] for arm in plan.arms}
    top1 = {key: {run["seed"]: run["top1"] for run in runs if run["status"] == "done"} for key, runs in records.items()}
    settings = [describe_setting(setting, plan.datasets[setting.name]) for setting in study.settings]
    first = next(setting for setting in settings if setting["name"] == study.primary.setting)
    primary = study.primary
    return {
        "schema": 1,
        "name": study.name,
        **{key: first[key] for key in ("data", "model", "at")},
        "settings": settings,
        "recipe": study.recipe.to_dict(),
        "budget": study.budget,
        "seeds": list(study.seeds),
        "primary": [plan.label(primary.setting, name) for name in (primary.arm, primary.reference)],
        "control": best_control(plan, top1),
        "contrasts": describe_contrasts(plan, top1),
        "arms": [describe_arm(plan, arm, records[arm.key], top1) for arm in plan.arms],
        "made_by": machines(plan, folder),
        "unlike": unlike(plan, folder),
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }


def read_run(spec: RunSpec, folder: Path) -> dict[str, Any]:
    """The record of one run. One that diverged or failed has a record too: it stays in the table."""
    found = outcome(folder / spec.folder_name) or {"status": "missing", "error": None}
    done = found["status"] == "done"
    record = {"seed": spec.seed, "folder": spec.folder_name, "status": found["status"], "error": found["error"]}
    record |= {key: found[key] if done else None for key in ("top1", "top5", "loss")}
    return record | {"curve": read_curve(folder / spec.folder_name / METRICS)}


def read_curve(path: Path) -> dict[str, list[float]]:
    """Top-1 and train loss after each epoch; a run that stopped early has a short one.

    Raises:
        DataError: If the file is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    try:
        epochs = [json.loads(line) for line in lines if line.endswith(b"\n")]  # of a run that is under way the last may be half there
        return {key: [float(epoch[key]) for epoch in epochs] for key in ("top1", "train_loss")}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: a line is not that of an epoch ({type(error).__name__}: {error})") from error


def machines(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """The environments in which the finished runs were begun, with how many `runs` each, and how many of them were `resumed` in another."""
    counted: dict[str, dict[str, Any]] = {}
    for spec in plan.runs:
        where = read_json(folder / spec.folder_name / ENVIRONMENT)
        if where is not None and (outcome(folder / spec.folder_name) or {}).get("status") == "done":
            moved = bool(where.pop("resumed", []))
            found = counted.setdefault(json.dumps(where, sort_keys=True), {"runs": 0, "resumed": 0, **where})
            found["runs"] += 1
            found["resumed"] += moved
    return list(counted.values())


def unlike(plan: Plan, folder: Path) -> dict[str, list[str]]:
    """The seeds whose finished runs were not all begun in the same environment, and in what these differ."""
    values: dict[int, dict[str, set[str]]] = {}
    for spec in plan.runs:
        where = read_json(folder / spec.folder_name / ENVIRONMENT)
        if where is not None and (outcome(folder / spec.folder_name) or {}).get("status") == "done":
            for key in where.keys() - NO_MATTER:
                values.setdefault(spec.seed, {}).setdefault(key, set()).add(json.dumps(where[key], sort_keys=True))
    differing = {str(seed): sorted(key for key, found in each.items() if len(found) > 1) for seed, each in values.items()}
    return {seed: keys for seed, keys in differing.items() if keys}


def train_seconds(spec: RunSpec, folder: Path) -> float | None:
    found = outcome(folder / spec.folder_name)
    return found["timing"]["train_seconds"] if found is not None and found["status"] == "done" else None


def describe_setting(setting: Setting, dataset: Dataset) -> dict[str, Any]:
    task = setting.task
    data = {
        "name": dataset.name,
        "note": dataset.note,
        "measured_on": "validation split" if task.validation else "test split",
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "classes": dataset.num_classes,
        "fingerprint": dataset.fingerprint,
    }
    return {"name": setting.name, "data": data, "model": task.model, "at": list(task.at)}


def describe_arm(plan: Plan, planned: PlannedArm, runs: Sequence[dict[str, Any]], top1: Top1) -> dict[str, Any]:
    assert plan.study.primary is not None
    arm, cost, bare = planned.arm, planned.cost, plan.bare[planned.setting]
    differences = {}
    for reference in ("none", plan.study.primary.reference):
        other = (planned.setting, reference)
        paired = arm.name != reference and other in top1 and top1[planned.key].keys() & top1[other].keys()
        name = plan.label(planned.setting, reference)
        differences[name] = asdict(paired_difference(top1[planned.key], top1[other])) if paired else None
    return {
        "name": plan.label(planned.setting, arm.name),
        "arm": arm.name,
        "setting": planned.setting,
        "attention": arm.attention,
        "arguments": dict(arm.arguments),
        "recipe": planned.recipe.differing_from(plan.study.recipe),
        "places": list(cost.places),
        "parameters": cost.parameters,
        "parameters_added": cost.parameters - bare.parameters,
        "macs": cost.macs,
        "macs_added": cost.macs - bare.macs,
        "runs": list(runs),
        "top1": asdict(summarize(top1[planned.key].values())),
        "difference": differences,
    }


def best_control(plan: Plan, top1: Top1) -> dict[str, Any] | None:
    """The difference of the primary arm to the control that comes nearest to it or leaves it farthest behind, and of how many it is that.

    Who is ahead of Non-Local no farther than a block without attention is, is so for another reason than attention. Controls that have
    fewer pairs than others are left out, and named: one seed alone is easily the highest or the lowest.
    """
    assert plan.study.primary is not None
    primary = plan.study.primary
    mine = top1.get((primary.setting, primary.arm), {})
    controls = [
        arm for arm in plan.arms if arm.setting == primary.setting and arm.arm.attention in CONTROLS and arm.arm.name != primary.arm
    ]
    pairs = {arm.arm.name: len(mine.keys() & top1[arm.key].keys()) for arm in controls}
    most = max(pairs.values(), default=0)
    if not most:
        return None
    found = {name: paired_difference(mine, top1[primary.setting, name]) for name, n in pairs.items() if n == most}
    nearest = min(found, key=lambda name: found[name].mean)
    fewer = [plan.label(primary.setting, name) for name in pairs if name not in found]
    return {"arm": plan.label(primary.setting, nearest), "of": len(found), "fewer": fewer, **asdict(found[nearest])}


def describe_contrasts(plan: Plan, top1: Top1) -> list[dict[str, Any]]:
    """The primary question, then the others; Holm adjusts the p of these together, one without a p counting as 1."""
    assert plan.study.primary is not None
    first, *others = [describe_contrast(plan, contrast, top1) for contrast in (plan.study.primary, *plan.contrasts)]
    adjusted = holm([1.0 if other["p"] is None else other["p"] for other in others])
    secondary = [
        {**other, "p_holm": None if other["p"] is None else p, "primary": False} for other, p in zip(others, adjusted, strict=True)
    ]
    return [{**first, "p_holm": None, "primary": True}, *secondary]


def describe_contrast(plan: Plan, contrast: Contrast, top1: Top1) -> dict[str, Any]:
    names = [plan.label(contrast.setting, name) for name in (contrast.arm, contrast.reference)]
    record = {"arm": names[0], "reference": names[1], "setting": contrast.setting}
    one, other = (top1.get((contrast.setting, name), {}) for name in (contrast.arm, contrast.reference))
    if not one.keys() & other.keys():
        empty = {"n": 0} | dict.fromkeys(("mean", "sd", "low", "high", "p", "p_sign_flip", "detectable"))
        return record | empty | {"note": "no seed finished with both"}
    found, tests = asdict(paired_difference(one, other)), asdict(evidence(one, other))
    notes = [note for note in (tests.pop("note"), found.pop("note")) if note]
    return record | found | tests | {"note": "; ".join(dict.fromkeys(notes))}
