"""Puts together what a study found, as plain data: arms, differences, costs and every run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from cpsam.attention import CONTROLS
from cpsam.config.study import Contrast
from cpsam.run.data import LoadedTask
from cpsam.run.records import RunOutcome, StoredRun
from cpsam.run.spec import RunSpec
from cpsam.statistics import evidence, holm, paired_difference, summarize
from cpsam.study.fields import setting_fields
from cpsam.study.plan import Plan, PlannedArm
from cpsam.typed import as_json

NO_MATTER = {"system", "cores", "resumed"}  # results do not depend on these

Top1 = Mapping[tuple[str, str], Mapping[int, float]]  # (setting, arm) -> seed -> value


def describe_run(spec: RunSpec, stored: StoredRun) -> dict[str, Any]:
    """Returns a run as plain data. A run that diverged or failed stays in the table too."""
    outcome = stored.outcome or RunOutcome("missing")
    return {
        "seed": spec.seed,
        "folder": spec.folder_name,
        "status": outcome.status,
        "error": outcome.error,
        "top1": outcome.top1,
        "top5": outcome.top5,
        "loss": outcome.loss,
        "curve": stored.curve,
    }


def study_results(plan: Plan, runs: Mapping[str, StoredRun]) -> dict[str, Any]:
    """Returns the results, without what depends on the clock and the machine that measures.

    A run without an end has the status "missing". Only finished runs are in a mean.
    """
    study = plan.study
    assert study.primary is not None
    top1 = {
        arm.key: {
            spec.seed: outcome.top1
            for spec in arm.specs
            if (outcome := runs[spec.folder_name].outcome) and outcome.top1 is not None
        }
        for arm in plan.arms
    }
    fields = setting_fields(plan)
    settings = [
        {
            **describe_setting(setting.name, plan.loaded[setting.name]),
            "receptive_fields": as_json(fields[setting.name]),
        }
        for setting in study.settings
    ]
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
        "arms": [describe_arm(plan, arm, runs, top1) for arm in plan.arms],
        "made_by": machines(runs.values()),
        "unlike": unlike(plan, runs),
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }


def machines(runs: Iterable[StoredRun]) -> list[dict[str, Any]]:
    """Returns the environments in which the finished runs were begun.

    Each has the number of its `runs`, and of those that were `resumed` in another environment.
    """
    counted: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.done and run.environment is not None:
            where = {
                key: value
                for key, value in run.environment.items()
                if key not in ("runs", "resumed")
            }
            found = counted.setdefault(
                json.dumps(where, sort_keys=True), {"runs": 0, "resumed": 0, **where}
            )
            found["runs"] += 1
            found["resumed"] += bool(run.environment.get("resumed"))
    return list(counted.values())


def unlike(plan: Plan, runs: Mapping[str, StoredRun]) -> dict[str, list[str]]:
    """Returns the seeds whose finished runs differ in their environments, and in what."""
    values: dict[int, dict[str, set[str]]] = {}
    for spec in plan.runs:
        run = runs[spec.folder_name]
        if run.done and run.environment is not None:
            for key in run.environment.keys() - NO_MATTER:
                said = json.dumps(run.environment[key], sort_keys=True)
                values.setdefault(spec.seed, {}).setdefault(key, set()).add(said)
    differing = {
        str(seed): sorted(key for key, found in each.items() if len(found) > 1)
        for seed, each in values.items()
    }
    return {seed: keys for seed, keys in differing.items() if keys}


def describe_setting(name: str, loaded: LoadedTask) -> dict[str, Any]:
    task, dataset = loaded.task, loaded.dataset
    data = {
        "name": dataset.name,
        "note": dataset.note,
        "measured_on": dataset.evaluation_name,
        "train_images": len(dataset.train),
        "test_images": len(dataset.evaluation),
        "classes": dataset.num_classes,
        "fingerprint": dataset.fingerprint,
    }
    return {"name": name, "data": data, "model": task.model, "at": list(task.at)}


def describe_arm(
    plan: Plan, planned: PlannedArm, runs: Mapping[str, StoredRun], top1: Top1
) -> dict[str, Any]:
    assert plan.study.primary is not None
    arm, cost, bare = planned.arm, planned.cost, plan.bare[planned.setting]
    differences = {}
    for reference in ("none", plan.study.primary.reference):
        other = (planned.setting, reference)
        paired = (
            arm.name != reference
            and other in top1
            and top1[planned.key].keys() & top1[other].keys()
        )
        name = plan.label(planned.setting, reference)
        differences[name] = (
            asdict(paired_difference(top1[planned.key], top1[other])) if paired else None
        )
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
        "runs": [describe_run(spec, runs[spec.folder_name]) for spec in planned.specs],
        "top1": asdict(summarize(top1[planned.key].values())),
        "difference": differences,
    }


def best_control(plan: Plan, top1: Top1) -> dict[str, Any] | None:
    """Returns the difference of the primary arm to the best control, and the number of controls.

    An arm that is not ahead of a control is not ahead because of attention. Controls with fewer
    pairs than others are left out and named, because a single seed is easily an extreme.
    """
    assert plan.study.primary is not None
    primary = plan.study.primary
    mine = top1.get((primary.setting, primary.arm), {})
    controls = [
        arm
        for arm in plan.arms
        if arm.setting == primary.setting
        and arm.arm.attention in CONTROLS
        and arm.arm.name != primary.arm
    ]
    pairs = {arm.arm.name: len(mine.keys() & top1[arm.key].keys()) for arm in controls}
    most = max(pairs.values(), default=0)
    if not most:
        return None
    found = {
        name: paired_difference(mine, top1[primary.setting, name])
        for name, n in pairs.items()
        if n == most
    }
    nearest = min(found, key=lambda name: found[name].mean)
    fewer = [plan.label(primary.setting, name) for name in pairs if name not in found]
    return {
        "arm": plan.label(primary.setting, nearest),
        "of": len(found),
        "fewer": fewer,
        **asdict(found[nearest]),
    }


def describe_contrasts(plan: Plan, top1: Top1) -> list[dict[str, Any]]:
    """Returns the answers to the primary question and to the others.

    Holm's method adjusts the p of the others together. A missing p counts as 1.
    """
    assert plan.study.primary is not None
    first, *others = [
        describe_contrast(plan, contrast, top1)
        for contrast in (plan.study.primary, *plan.contrasts)
    ]
    adjusted = holm([1.0 if other["p"] is None else other["p"] for other in others])
    secondary = [
        {**other, "p_holm": None if other["p"] is None else p, "primary": False}
        for other, p in zip(others, adjusted, strict=True)
    ]
    return [{**first, "p_holm": None, "primary": True}, *secondary]


def describe_contrast(plan: Plan, contrast: Contrast, top1: Top1) -> dict[str, Any]:
    names = [plan.label(contrast.setting, name) for name in (contrast.arm, contrast.reference)]
    record = {"arm": names[0], "reference": names[1], "setting": contrast.setting}
    one, other = (
        top1.get((contrast.setting, name), {}) for name in (contrast.arm, contrast.reference)
    )
    if not one.keys() & other.keys():
        empty = {"n": 0} | dict.fromkeys(
            ("mean", "sd", "low", "high", "p", "p_sign_flip", "detectable")
        )
        return record | empty | {"note": "no seed finished with both"}
    found, tests = asdict(paired_difference(one, other)), asdict(evidence(one, other))
    notes = [note for note in (tests.pop("note"), found.pop("note")) if note]
    return record | found | tests | {"note": "; ".join(dict.fromkeys(notes))}
