"""The answer of a study in sentences: the primary contrast, its evidence, and the best control."""

from cpsam.report.records import ArmResult, Difference
from cpsam.report.results import Results
from cpsam.report.values import mean_words, numbered, points, words
from cpsam.statistics import ENOUGH_PAIRS


def answer(results: Results) -> str:
    """Returns the primary contrast in one sentence.

    It claims nothing where the interval covers zero, or with one seed. It says where seeds are too
    few for a test.
    """
    sentence = answer_in_its_setting(results)
    if not results.has_settings:
        return sentence
    first = sentence[0].lower() if sentence.startswith(("One", "Top")) else sentence[0]
    return f"At {results.primary_contrast.setting}: {first}{sentence[1:]}"


def answer_in_its_setting(results: Results) -> str:
    name, reference = map(results.short_name, results.primary)
    absent = [label for label in results.primary if label not in results.by_name]
    arm = results.by_name.get(results.primary[0])
    if arm is not None and absent and is_alone(results, arm):
        found = (
            "no run of it has finished"
            if arm.top1.mean is None
            else f"its top-1 is {mean_words(arm.top1)} %"
        )
        return f"{name} is the only arm, so there is nothing to compare it with; {found}."
    unanswered = f"{name} against {reference} is not answered"
    if absent:
        return f"{unanswered}: {' and '.join(absent)} did not take part."
    found = results.primary_contrast
    if found.mean is None:
        return f"{unanswered}: no seed finished with both."
    gap = f"top-1 of {name} minus {reference} is {points(found.mean)} points"
    pairs = pairs_of(found)
    if found.low is None or found.high is None:
        if found.n == 1:
            return f"One seed makes no claim: {gap} (n = 1, so there is no interval)."
        return f"T{gap[1:]} on every seed, which gives no interval ({pairs})."
    evidence = interval_words(found)
    if found.low <= 0 <= found.high:
        return (
            f"{name} and {reference} are not told apart: {gap}, {evidence}, which covers zero"
            f" ({pairs})."
        )
    side = "ahead of" if found.mean > 0 else "behind"
    size = points(found.mean)[1:]
    return f"{name} is {size} points of top-1 {side} {reference} ({evidence}, {pairs})."


def is_alone(results: Results, arm: ArmResult) -> bool:
    """Returns whether an arm is the only one of its setting."""
    return len(results.arms_in(arm.setting)) == 1


def subject(results: Results) -> str:
    """Returns what a study is about, such as ``cpsam against non_local on digits``."""
    name, reference = map(results.short_name, results.primary)
    arm = results.by_name.get(results.primary[0])
    against = "" if arm is not None and is_alone(results, arm) else f" against {reference}"
    return f"{name}{against} on {results.data.name}"


def pairs_of(difference: Difference) -> str:
    """Returns ``n = 3 paired seeds, too few for a test``."""
    few = ", too few for a test" if difference.n < ENOUGH_PAIRS else ""
    return f"n = {numbered(difference.n, 'paired seed')}{few}"


def interval_words(difference: Difference) -> str:
    assert difference.low is not None and difference.high is not None
    return f"95 % interval {points(difference.low)} to {points(difference.high)}"


def evidence(results: Results) -> list[str]:
    """Returns sentences about the test of the primary contrast, or why there is none."""
    found = results.primary_contrast
    if not found.n:
        return []  # the answer has said so
    said = []
    if found.p is not None:
        flips = found.p_sign_flip
        check = "" if flips is None else f" (exact sign-flip test, as a check: {flips:.2g})"
        said.append(f"Paired t-test p = {found.p:.2g}{check}.")
    if found.note:
        said.append(f"{found.note[0].upper()}{found.note[1:]}.")
    # a difference above 100 points cannot exist
    if found.detectable is not None and found.detectable < 1:
        said.append(
            "With this spread and this number of seeds, a true difference of"
            f" {100 * found.detectable:.2f} points would be found four times in five."
        )
    return said


def control_words(results: Results) -> list[str]:
    """Returns how the primary arm compares with the best control; [] where no control took part."""
    control = results.control
    if control is None or control.mean is None:
        return []
    name, other = results.short_name(results.primary[0]), results.short_name(control.arm)
    kind = (
        f"the best of {control.of} controls without attention"
        if control.of > 1
        else "the control without attention"
    )
    mean, pairs = points(control.mean), pairs_of(control)
    if control.low is None or control.high is None:
        said = f"{name} minus {other}, {kind}, is {mean} points ({pairs})."
    elif control.low <= 0 <= control.high:
        gap = f"{mean} points, {interval_words(control)} ({pairs})"
        said = f"{name} is not told apart from {other}, {kind}: {gap}."
    else:
        side = "ahead of" if control.mean > 0 else "behind"
        gap = f"{mean[1:]} points, {interval_words(control)} ({pairs})"
        said = f"{name} is {side} {other}, {kind}: by {gap}."
    fewer = [results.short_name(arm) for arm in control.fewer]
    return [f"{said} Controls with fewer seeds are left out: {words(fewer)}." if fewer else said]
