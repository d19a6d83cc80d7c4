"""What a comparison says, in words: the answer in one sentence and the table. The page and the terminal both take theirs from here."""

from collections.abc import Mapping, Sequence
from typing import Any

MINUS, MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"
UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def count(number: float | None) -> str:
    """A count with its unit and four digits, so that a block shows beside its network: ``40.81 M``."""
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
    """``+0.52 [−0.10, +1.14]``, with n where it is not the number of `runs` that stands in the row."""
    if difference is None:
        return MISSING
    interval = "(one seed)" if difference["low"] is None else f"[{points(difference['low'])}, {points(difference['high'])}]"
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


def references_of(results: Mapping[str, Any]) -> list[str]:
    """The arms that others are compared with: that of the primary contrast first, and only those that took part."""
    names = {reference for arm in results["arms"] for reference in arm["difference"]}
    return sorted((name for name in names if arm_of(results, name)), key=lambda name: (name != results["primary"][1], name))


def primary_difference(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of the primary contrast, None if one of its arms is missing or no seed finished with both."""
    name, reference = results["primary"]
    arm = arm_of(results, name)
    return arm["difference"].get(reference) if arm else None


def answer(results: Mapping[str, Any]) -> str:
    """The primary contrast in one sentence; it claims nothing where the interval covers zero, or with one seed.

    Args:
        results: What the study wrote, ``schema`` 1.
    """
    name, reference = results["primary"]
    difference = primary_difference(results)
    absent = [arm for arm in (name, reference) if arm_of(results, arm) is None]
    if absent:
        return f"{name} against {reference} is not answered: {' and '.join(absent)} did not take part."
    if difference is None:
        return f"{name} against {reference} is not answered: no seed finished with both."
    mean = points(difference["mean"])
    if difference["low"] is None:
        return f"One seed makes no claim: top-1 of {name} minus {reference} is {mean} points (n = 1, so there is no interval)."
    low, high = points(difference["low"]), points(difference["high"])
    evidence = f"95 % interval {low} to {high}"
    pairs = f"n = {difference['n']} paired seeds"
    if difference["low"] <= 0 <= difference["high"]:
        gap = f"top-1 of {name} minus {reference} is {mean} points"
        return f"{name} and {reference} are not told apart: {gap}, {evidence}, which covers zero ({pairs})."
    side = "ahead of" if difference["mean"] > 0 else "behind"
    return f"{name} is {mean[1:]} points of top-1 {side} {reference} ({evidence}, {pairs})."


def table_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison, one row an arm, every cell a string.

    Args:
        results: What the study wrote, ``schema`` 1.

    Returns:
        The header, and the rows in the order of the arms. A reference arm that did not take part has no column.
    """
    references = references_of(results)
    timing = results.get("timing") or {}
    batch = f" of {timing['batch_size']}" if timing.get("batch_size") else ""
    header = ["arm", "parameters added", "MACs", f"ms a batch{batch}", "top-1, %", "n", *(f"vs {name}, points" for name in references)]
    return header, [row_of(arm, timing, references) for arm in results["arms"]]


def row_of(arm: Mapping[str, Any], timing: Mapping[str, Any], references: Sequence[str]) -> list[str]:
    parameters = MISSING if arm["parameters_added"] is None else f"{arm['parameters_added']:,}"
    latency = timing.get("arms", {}).get(arm["name"], {}).get("latency_ms")
    runs = arm["top1"]["n"]
    differences = (difference_words(arm["difference"].get(reference), runs) for reference in references)
    return [arm["name"], parameters, count(arm["macs"]), latency_words(latency), top1_words(arm["top1"]), str(runs), *differences]
