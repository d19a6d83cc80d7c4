"""Values and findings as a person reads them, for every form of a report."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from cpsam.report.table import (
    MISSING,
    bare,
    count_words,
    datasets_of,
    pairs_words,
    points,
    primary_difference,
    settings_of,
    short_name,
)


def words(value: object) -> str:
    """A value of a configuration as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else str(value)


def place_words(places: Sequence[str]) -> str:
    """Module paths; of many, the first and the last."""
    return (
        words(places) if len(places) < 4 else f"{len(places)} places, {places[0]} to {places[-1]}"
    )


def unbroken(sentence: str) -> str:
    """A number stays on the line of its unit or its name."""
    return (
        sentence.replace("top-1", "top\N{NON-BREAKING HYPHEN}1")
        .replace(" %", "\N{NO-BREAK SPACE}%")
        .replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    )


def duration(seconds: float) -> str:
    """In its two largest units, to the second.

    Example:
        >>> duration(3785), duration(40), duration(200_000), duration(119.7)
        ('1 h 3 min', '40 s', '2 d 7 h', '2 min 0 s')
    """
    left, parts = round(seconds), []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        whole, left = divmod(left, size)
        if parts or whole or size == 1:
            parts.append(f"{whole} {name}")
    return " ".join(parts[:2])


def evidence_words(results: Mapping[str, Any]) -> list[str]:
    """What stands behind the answer: the test of the primary contrast, or why there is none."""
    contrasts = results.get("contrasts")
    if contrasts:
        first = contrasts[0]
        if not first["n"]:
            return []  # the answer has said so
        check = (
            ""
            if first["p_sign_flip"] is None
            else f" (exact sign-flip test, as a check: {first['p_sign_flip']:.2g})"
        )
        said = [] if first["p"] is None else [f"Paired t-test p = {first['p']:.2g}{check}."]
        said += [f"{first['note'][0].upper()}{first['note'][1:]}."] if first["note"] else []
        # more than all is no difference
        if first["detectable"] is not None and first["detectable"] < 1:
            found = f"{100 * first['detectable']:.2f}"
            said.append(
                f"With this spread and so many seeds, a true difference of {found} points would be"
                " found four times in five."
            )
        return said
    difference = primary_difference(results) or {}
    p, note = difference.get("p"), difference.get("note")
    return ([f"Paired t-test p = {p:.2g}."] if p is not None else []) + (
        [f"{note[0].upper()}{note[1:]}."] if note else []
    )


def facts_words(results: Mapping[str, Any]) -> str:
    """Networks, data, seeds and runs, in one sentence."""
    settings, seeds = settings_of(results), results["seeds"]
    places = (
        words([setting["name"] for setting in settings])
        if len(settings) > 1
        else words(settings[0]["at"])
    )
    networks = words(list(dict.fromkeys(setting["model"] for setting in settings)))
    facts = [
        (
            f"{networks} with a block at {places}"
            if any(arm["places"] for arm in results["arms"])
            else f"{networks} without a block"
        )
    ]
    for data in datasets_of(results):
        what_for = (
            "held out to measure on"
            if data.get("measured_on") == "validation split"
            else "to test on"
        )
        images = f"{data['train_images']:,} images to train on, {data['test_images']:,} {what_for}"
        facts.append(f"{data['name']}: {images}, {data['classes']} classes")
    facts += [f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({words(seeds)})", count_words(results)]
    return "; ".join(facts) + "."


def protocol(results: Mapping[str, Any]) -> dict[str, object]:
    """When and on what is measured, what is equal for all arms, and the seeds."""
    said: dict[str, object] = {
        "measured": (
            f"after the last epoch, on the {results['data'].get('measured_on', 'test split')}"
        )
    }
    if results.get("budget"):
        said["budget"] = f"equal {results['budget']}"
    return {**said, "seeds": results["seeds"]}


def blocks(results: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> its block, what was set of it, and where it went; the bare network has none."""
    said = {}
    for arm in results["arms"]:
        if arm["places"]:
            parts = [arm["attention"]] * (arm["attention"] != short_name(arm)) + [
                words(arm["arguments"]) or "defaults"
            ]
            own = [f"recipe of its own: {words(arm['recipe'])}"] if arm.get("recipe") else []
            said[arm["name"]] = ", ".join([*parts, f"at {place_words(arm['places'])}", *own])
    return said


def data_notes(results: Mapping[str, Any]) -> list[str]:
    """What each dataset says of itself, once."""
    return list(dict.fromkeys(data["note"] for data in datasets_of(results) if data.get("note")))


def control_words(results: Mapping[str, Any]) -> list[str]:
    """How the primary arm stands to the best control, in one sentence beside the answer; none where
    no control took part.
    """
    control = results.get("control")
    if not control:
        return []
    name, other = bare(results, results["primary"][0]), bare(results, control["arm"])
    kind = (
        f"the best of {control['of']} controls, which attend to nothing"
        if control["of"] > 1
        else "the control, which attends to nothing"
    )
    mean, pairs = points(control["mean"]), pairs_words(control["n"])
    if control["low"] is None:
        said = f"{name} minus {other}, {kind}, is {mean} points ({pairs})."
    else:
        evidence = f"95 % interval {points(control['low'])} to {points(control['high'])} ({pairs})"
        if control["low"] <= 0 <= control["high"]:
            said = f"{name} is not told apart from {other}, {kind}: {mean} points, {evidence}."
        else:
            said = (
                f"{name} is {'ahead of' if control['mean'] > 0 else 'behind'} {other}, {kind}: by"
                f" {mean[1:]} points, {evidence}."
            )
    # results of before there was this have none
    fewer = [bare(results, arm) for arm in control.get("fewer", ())]
    return [f"{said} Left out there, with fewer seeds: {words(fewer)}." if fewer else said]


def history_words(results: Mapping[str, Any]) -> list[str]:
    """What was changed in the plan after runs of it had ended: whoever adds seeds until a
    difference shows will find one.
    """
    said = []
    plans = results.get("plans") or []
    for before, after in pairwise(plans):
        changes = [
            f"{len(each)} {how}"
            f" {what}{'s' * (len(each) != 1)}{f' ({words(each)})' if what != 'run' else ''}"
            for what, key in (("seed", "seeds"), ("arm", "arms"), ("run", "runs"))
            if key in before
            for how, one, other in (("more", after, before), ("fewer", before, after))
            if (each := missing_from(one[key], other[key]))
        ]
        changes += (
            ["other secondary contrasts"]
            if sorted(after["contrasts"]) != sorted(before["contrasts"])
            else []
        )
        changes += ["another budget"] if after["budget"] != before["budget"] else []
        if "arms" in before:  # plans of before these were kept say less
            changes += altered_words("recipe", before["recipe"], after["recipe"])
            for arm, was in before["arms"].items():
                now = after["arms"].get(arm, was)
                changes += altered_words(
                    arm,
                    {**was, **was["arguments"], **was["recipe"]},
                    {**now, **now["arguments"], **now["recipe"]},
                )
        listed = " and ".join(part for part in (", ".join(changes[:-1]), *changes[-1:]) if part)
        if listed:
            said.append(
                f"The plan was changed after {after['ended_before']} of its {len(before['runs'])}"
                f" runs had ended: {listed}."
            )
    return said


def missing_from(items: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Returns the items that are not among the others."""
    known = set(others)
    return [item for item in items if item not in known]


def altered_words(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """``recipe (epochs 3 instead of 2)``; nothing if all is as it was."""
    keys = [
        key
        for key in {**before, **after}
        if key not in ("arguments", "recipe") and before.get(key) != after.get(key)
    ]
    pairs = ", ".join(
        f"{key} {words(after.get(key))} instead of {words(before.get(key))}" for key in keys
    )
    return [f"{what} ({pairs})"] if keys else []


def unlike_words(results: Mapping[str, Any]) -> list[str]:
    """Which seeds were made in more than one environment: what differs there is no part of what a
    pair shares.
    """
    seeds: dict[tuple[str, ...], list[str]] = {}
    for seed, keys in (results.get("unlike") or {}).items():
        seeds.setdefault(tuple(keys), []).append(seed)
    return [
        f"The runs of seed{'s' * (len(alike) > 1)} {words(alike)} were not all made alike:"
        f" {words(keys)} differ{'s' * (len(keys) == 1)}. Their pairs share the order of the images"
        " and their augmentation, and not that."
        for keys, alike in seeds.items()
    ]


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the numbers."""
    return [*results.get("warnings", ()), *history_words(results), *unlike_words(results)]
