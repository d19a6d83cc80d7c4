"""What a comparison says, in words: the answer in one sentence and the table. The page and the
terminal both take theirs from here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cpsam.statistics import ENOUGH_PAIRS

MINUS, MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"
UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def count(number: float | None) -> str:
    """A count with its unit and four digits, so that a block shows beside its network:
    ``40.81 M``.
    """
    if number is None:
        return MISSING
    size, unit = next(((size, unit) for size, unit in UNITS if number >= size), (1, ""))
    return f"{number / size:.{4 - len(str(int(number // size)))}f} {unit}" if unit else str(number)


def percent(share: float | None) -> str:
    """A share of one in percent, without the sign: 0.934 is ``93.40``."""
    return MISSING if share is None else f"{100 * share:.2f}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, its sign always shown: ``+0.52``."""
    return f"{100 * difference:+.2f}".replace("-", MINUS)


def top1_words(top1: Mapping[str, Any]) -> str:
    """``93.40 ± 0.12``; one seed has no spread."""
    return percent(top1["mean"]) + ("" if top1["sd"] is None else f" ± {percent(top1['sd'])}")


def difference_words(difference: Mapping[str, Any] | None, runs: int) -> str:
    """``+0.52 [−0.10, +1.14]``, with n where it is not the number of `runs` that stands in
    the row.
    """
    if difference is None:
        return MISSING
    without = "(one seed)" if difference["n"] == 1 else "(each seed the same)"
    interval = (
        without
        if difference["low"] is None
        else f"[{points(difference['low'])}, {points(difference['high'])}]"
    )
    pairs = "" if difference["n"] == runs else f" (n = {difference['n']})"
    return f"{points(difference['mean'])} {interval}{pairs}"


def latency_words(latency: Mapping[str, Any] | None) -> str:
    """``12.3 (12.1–12.8)``: median and quartiles."""
    if latency is None:
        return MISSING
    digits = 2 if latency["median"] < 10 else 1
    median, q1, q3 = (f"{latency[key]:.{digits}f}" for key in ("median", "q1", "q3"))
    return f"{median} ({q1}\N{EN DASH}{q3})"


def arm_of(results: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((arm for arm in results["arms"] if arm["name"] == name), None)


def settings_of(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where arms were compared; a comparison has one setting, of no name."""
    return results.get("settings") or [
        {"name": "", **{key: results[key] for key in ("data", "model", "at")}}
    ]


def datasets_of(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was learned, each once; several settings may share it."""
    found: list[Mapping[str, Any]] = []
    for setting in settings_of(results):
        found += [setting["data"]] if setting["data"] not in found else []
    return found


def arms_in(results: Mapping[str, Any], setting: str | None) -> list[Mapping[str, Any]]:
    """The arms of a setting; of all of them for None."""
    return [arm for arm in results["arms"] if setting is None or arm.get("setting", "") == setting]


def short_name(arm: Mapping[str, Any]) -> str:
    """The name of an arm within its setting."""
    return arm.get("arm") or arm["name"]


def bare(results: Mapping[str, Any], name: str) -> str:
    """The name of an arm without that of its setting."""
    arm = arm_of(results, name)
    return name if arm is None else short_name(arm)


def differences_of(
    results: Mapping[str, Any], arm: Mapping[str, Any]
) -> dict[str, Mapping[str, Any] | None]:
    """The differences of an arm by the names that the others have within the setting; only to those
    that took part.
    """
    return {
        bare(results, name): difference
        for name, difference in arm["difference"].items()
        if arm_of(results, name)
    }


def references_of(results: Mapping[str, Any], setting: str | None = None) -> list[str]:
    """The arms that others are compared with, by their names within a setting: that of the primary
    contrast first.
    """
    names = {name for arm in arms_in(results, setting) for name in differences_of(results, arm)}
    first = bare(results, results["primary"][1])
    return sorted(names, key=lambda name: (name != first, name))


def primary_difference(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of the primary contrast, None if one of its arms is missing or no seed finished
    with both.
    """
    name, reference = results["primary"]
    arm = arm_of(results, name)
    return arm["difference"].get(reference) if arm else None


def answer(results: Mapping[str, Any]) -> str:
    """The primary contrast in one sentence. It claims nothing where the interval covers zero, or
    with one seed, and says where seeds are too few for a test.

    Args:
        results: What the study wrote, ``schema`` 1.
    """
    sentence = answer_in_its_setting(results)
    if len(settings_of(results)) == 1:
        return sentence
    first = sentence[0].lower() if sentence.startswith(("One", "Top")) else sentence[0]
    return f"At {results['contrasts'][0]['setting']}: {first}{sentence[1:]}"


def answer_in_its_setting(results: Mapping[str, Any]) -> str:
    difference = primary_difference(results)
    absent = [bare(results, arm) for arm in results["primary"] if arm_of(results, arm) is None]
    name, reference = (bare(results, arm) for arm in results["primary"])
    arm = arm_of(results, results["primary"][0])
    if arm is not None and absent and is_alone(results, arm):
        found = (
            "no run of it has finished"
            if arm["top1"]["mean"] is None
            else f"its top-1 is {top1_words(arm['top1'])} %"
        )
        return f"{name} is the only arm, so there is nothing to compare it with; {found}."
    if absent:
        return (
            f"{name} against {reference} is not answered: {' and '.join(absent)} did not take part."
        )
    if difference is None:
        return f"{name} against {reference} is not answered: no seed finished with both."
    mean = points(difference["mean"])
    pairs = pairs_words(difference["n"])
    if difference["low"] is None and difference["n"] > 1:
        return (
            f"Top-1 of {name} minus {reference} is {mean} points on every seed, which gives no"
            f" interval ({pairs})."
        )
    if difference["low"] is None:
        return (
            f"One seed makes no claim: top-1 of {name} minus {reference} is {mean} points (n = 1,"
            " so there is no interval)."
        )
    low, high = points(difference["low"]), points(difference["high"])
    evidence = f"95 % interval {low} to {high}"
    if difference["low"] <= 0 <= difference["high"]:
        gap = f"top-1 of {name} minus {reference} is {mean} points"
        return (
            f"{name} and {reference} are not told apart: {gap}, {evidence}, which covers zero"
            f" ({pairs})."
        )
    side = "ahead of" if difference["mean"] > 0 else "behind"
    return f"{name} is {mean[1:]} points of top-1 {side} {reference} ({evidence}, {pairs})."


def is_alone(results: Mapping[str, Any], arm: Mapping[str, Any]) -> bool:
    """Whether an arm is the only one of its setting."""
    return len(arms_in(results, arm.get("setting"))) == 1


def subject(results: Mapping[str, Any]) -> str:
    """Returns what a study is about in a few words, such as ``cpsam against non_local on
    digits``.
    """
    name, reference = results["primary"]
    arm = arm_of(results, name)
    against = (
        "" if arm is not None and is_alone(results, arm) else f" against {bare(results, reference)}"
    )
    return f"{bare(results, name)}{against} on {results['data']['name']}"


def pairs_words(n: int) -> str:
    """``n = 3 paired seeds, too few for a test``."""
    return (
        f"n = {n} paired seed{'s' * (n != 1)}{', too few for a test' if n < ENOUGH_PAIRS else ''}"
    )


def table_rows(
    results: Mapping[str, Any], setting: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison, one row an arm, every cell a string.

    Args:
        results: What the study wrote, ``schema`` 1.
        setting: Only the arms of this one, by their names in it; None: all.

    Returns:
        The header, and the rows in the order of the arms. A reference arm that did not take part
        has no column.
    """
    references = references_of(results, setting)
    timing = results.get("timing") or {}
    batch = f" of {timing['batch_size']}" if timing.get("batch_size") else ""
    header = [
        "arm",
        "parameters added",
        "MACs",
        f"ms a batch{batch}",
        "top-1, %",
        "n",
        *(f"vs {name}, points" for name in references),
    ]
    rows = [row_of(results, arm, timing, references) for arm in arms_in(results, setting)]
    if setting is not None:
        for row, arm in zip(rows, arms_in(results, setting), strict=True):
            row[0] = short_name(arm)
    return header, rows


def row_of(
    results: Mapping[str, Any],
    arm: Mapping[str, Any],
    timing: Mapping[str, Any],
    references: Sequence[str],
) -> list[str]:
    parameters = MISSING if arm["parameters_added"] is None else f"{arm['parameters_added']:,}"
    latency = timing.get("arms", {}).get(arm["name"], {}).get("latency_ms")
    runs, found = arm["top1"]["n"], differences_of(results, arm)
    differences = (difference_words(found.get(reference), runs) for reference in references)
    return [
        arm["name"],
        parameters,
        count(arm["macs"]),
        latency_words(latency),
        top1_words(arm["top1"]),
        str(runs),
        *differences,
    ]


def p_words(p: float | None) -> str:
    """``0.031``, ``< 0.001``."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def contrast_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the questions, the primary one first; what no question has is no column.

    Only the others have their p adjusted, together, by Holm.
    """
    contrasts = results.get("contrasts", [])
    firsts = {bare(results, contrast["arm"]) for contrast in contrasts}
    name = f"{next(iter(firsts))} {MINUS}" if len(firsts) == 1 else "contrast"
    header = [
        name,
        "difference, points",
        "n",
        "p",
        "p, Holm",
        "p, sign flips",
        "could be found, points",
    ]
    rows = []
    for contrast in contrasts:
        difference = (
            MISSING if contrast["mean"] is None else difference_words(contrast, contrast["n"])
        )
        found = (
            MISSING
            if contrast["detectable"] is None
            else points(contrast["detectable"]).removeprefix("+")
        )
        ps = (
            contrast["p"] if contrast["primary"] else None,
            contrast["p_holm"],
            contrast["p_sign_flip"],
        )
        first = "" if len(firsts) == 1 else f"{bare(results, contrast['arm'])} {MINUS} "
        where = f", {contrast['setting']}" if len(settings_of(results)) > 1 else ""
        question = f"{first}{bare(results, contrast['reference'])}{where}"
        rows.append([question, difference, str(contrast["n"]), *map(p_words, ps), found])
    kept = [
        index
        for index in range(len(header))
        if index < 3 or any(row[index] != MISSING for row in rows)
    ]
    return [header[index] for index in kept], [[row[index] for index in kept] for row in rows]


def failed_runs(results: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Arm, seeds, status and error of the runs that are not done; runs of an arm that ended alike
    stand in one row.
    """
    alike: dict[tuple[str, str, str], list[int]] = {}
    for arm in results["arms"]:
        for run in arm["runs"]:
            if run["status"] != "done":
                alike.setdefault(
                    (arm["name"], run["status"], run.get("error") or MISSING), []
                ).append(run["seed"])
    return [
        (name, ", ".join(map(str, seeds)), status, error)
        for (name, status, error), seeds in alike.items()
    ]


FAILED_HEADER = ("arm", "seeds", "status", "error")


def made_by(results: Mapping[str, Any]) -> list[str]:
    """Where the runs were made, one line for each machine, setting and commit; it need not be where
    the report was.
    """
    lines = []
    for where in results.get("made_by") or []:
        shared = ", ".join(
            str(where[key]) for key in ("processor", "device", "precision") if where.get(key)
        )
        versions = (where.get("versions") or {}).get("torch")
        commit = str(where.get("commit"))[:10]
        runs = f"{where['runs']} run{'s' * (where['runs'] != 1)}"
        runs += f" ({where['resumed']} of them resumed elsewhere)" if where["resumed"] else ""
        threads = f"{where.get('threads')} thread{'s' * (where.get('threads') != 1)}"
        lines.append(f"{runs}: {shared}, {threads}, torch {versions}, commit {commit}")
    return lines


def count_words(results: Mapping[str, Any]) -> str:
    """How many runs there were and how they ended: ``24 runs: 22 done, 2 diverged``; a run that two
    settings share counts once.
    """
    ends = {
        run.get("folder", (arm["name"], run["seed"])): run["status"]
        for arm in results["arms"]
        for run in arm["runs"]
    }
    counted = {
        status: list(ends.values()).count(status)
        for status in ("done", "diverged", "failed", "missing")
    }
    parts = [f"{number} {status}" for status, number in counted.items() if number]
    return f"{len(ends)} run{'s' * (len(ends) != 1)}: {', '.join(parts)}"
