"""Computes means, paired differences and their uncertainty, as pure functions of numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# The t distribution, its inverse and its non-central form. scipy.stats is slow to import.
from scipy.special import nctdtr, stdtr, stdtrit

from cpsam.errors import UserError

CONFIDENCE = 0.95
POWER = 0.8
# With five pairs, no sign-flip p is below 2 / 2^5 = 0.0625, so it could never confirm a t-test.
ENOUGH_PAIRS = 6
NO_SPREAD = "the same difference on every seed: no interval, no p"
MOST_SIGN_FLIPS = 40  # differences; the enumeration holds 2^20 sums twice


@dataclass(frozen=True)
class Summary:
    """The mean and the sample standard deviation of `n` values.

    `mean` is None for n = 0, and `sd` for n < 2.
    """

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class PairedDifference:
    """The mean of `n` paired differences with its 95 % t-interval, in the unit of the values.

    Attributes:
        n: The number of pairs.
        mean: The mean of a - b.
        sd: The sample standard deviation of a - b; None for one pair.
        low: The lower end of the interval. None for one pair, and where all differences are equal,
            because no width can be estimated then.
        high: The upper end of the interval; None like `low`.
        p: The two-sided p of the paired t-test; None like `low`.
        note: What a reader must know besides the numbers; "" if nothing.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    note: str


@dataclass(frozen=True)
class Evidence:
    """What the differences of a contrast say against the hypothesis that there is none.

    Attributes:
        p: The two-sided p of the paired t-test. None if there was no test, or if all differences
            are equal.
        p_sign_flip: The exact two-sided p of the sign-flip test, which assumes less.
        detectable: The true difference that a study of this size and spread detects with a power
            of 80 %; None without a spread.
        note: Why there is no test; "" if there is one.
    """

    p: float | None
    p_sign_flip: float | None
    detectable: float | None
    note: str


def finite(values: Iterable[float], what: str) -> np.ndarray:
    """Returns the values as an array; refuses values that are not finite."""
    array = np.asarray(list(values), dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(
            f"{what} must be finite; got"
            f" {[float(value) for value in array if not np.isfinite(value)]}"
        )
    return array


def summarize(values: Iterable[float]) -> Summary:
    """Returns the mean and the sample standard deviation (n - 1 in the denominator).

    Raises:
        UserError: If a value is not finite.

    Example:
        >>> summarize([1.0, 2.0, 3.0])
        Summary(n=3, mean=2.0, sd=1.0)
    """
    array = finite(values, "values")
    mean = float(array.mean()) if array.size else None
    return Summary(array.size, mean, float(array.std(ddof=1)) if array.size > 1 else None)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> PairedDifference:
    """Compares two arms over the seeds that both have.

    Args:
        a: The values of one arm by seed.
        b: The values of the other arm by seed.

    Returns:
        The mean of a - b with its 95 % t-interval. With one pair there is no interval, and `note`
        says so. It also names the seeds that only one arm has, which are left out.

    Raises:
        UserError: If a value is not finite, or no seed is in both.

    Example:
        >>> paired_difference({0: 0.75, 1: 1.0}, {0: 0.5, 1: 0.25, 2: 0.5}).note
        'only in one arm, left out: seed 2'
    """
    seeds, lone = sorted(a.keys() & b.keys()), sorted(a.keys() ^ b.keys())
    if not seeds:
        raise UserError(f"paired values need a seed in common; got {sorted(a)} and {sorted(b)}")
    first, second = (
        finite((a[seed] for seed in seeds), "values"),
        finite((b[seed] for seed in seeds), "values"),
    )
    differences = first - second
    n, mean = len(seeds), float(differences.mean())
    notes = (
        [f"only in one arm, left out: seed{'s' * (len(lone) > 1)} {', '.join(map(str, lone))}"]
        if lone
        else []
    )
    if n == 1:
        return PairedDifference(
            n, mean, None, None, None, None, "; ".join(["one seed: no interval", *notes])
        )
    # The rounding error of a difference is at most one ulp of the larger value. Differences within
    # it are one constant, not a tiny spread.
    if np.ptp(differences) <= 4 * np.finfo(np.float64).eps * max(
        np.abs(first).max(), np.abs(second).max()
    ):
        return PairedDifference(n, mean, 0.0, None, None, None, "; ".join([NO_SPREAD, *notes]))
    sd, half_width, p = (float(value) for value in t_test(differences))
    return PairedDifference(n, mean, sd, mean - half_width, mean + half_width, p, "; ".join(notes))


def t_test(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns sd, half the width of the 95 % interval, and two-sided p for rows of differences.

    Rows (..., n) of n >= 2 differences give arrays (...); p is NaN where sd is 0.
    """
    n = differences.shape[-1]
    sd = differences.std(axis=-1, ddof=1)
    error = sd / n**0.5
    t = np.abs(differences.mean(axis=-1)) / np.where(error > 0, error, np.nan)
    return sd, error * stdtrit(n - 1, (1 + CONFIDENCE) / 2), 2 * stdtr(n - 1, -t)


def evidence(a: Mapping[int, float], b: Mapping[int, float]) -> Evidence:
    """Tests a paired difference, if there are enough seeds for a test.

    Args:
        a: The values of one arm by seed.
        b: The values of the other arm by seed.

    Raises:
        UserError: For the same reasons as :func:`paired_difference`.

    Example:
        >>> print(evidence({0: 0.75, 1: 1.0}, {0: 0.5, 1: 0.25}).note.partition(",")[0])
        not enough seeds for a test: 2 pairs
    """
    difference = paired_difference(a, b)
    detectable = detectable_difference(difference.sd, difference.n) if difference.sd else None
    if difference.n < ENOUGH_PAIRS:
        pairs = f"{difference.n} pair{'s' * (difference.n > 1)}"
        why = (
            f"not enough seeds for a test: {pairs}, and with fewer than {ENOUGH_PAIRS} the"
            " sign-flip test cannot reach 5 %"
        )
        return Evidence(None, None, detectable, why)
    check = (
        sign_flip_p(a[seed] - b[seed] for seed in a.keys() & b.keys())
        if difference.n <= MOST_SIGN_FLIPS
        else None
    )
    return Evidence(difference.p, check, detectable, "" if difference.p is not None else NO_SPREAD)


def detectable_difference(sd: float, n: int) -> float:
    """Returns the true mean difference that a two-sided 5 % t-test of n pairs detects with a power
    of 80 %.

    Args:
        sd: The standard deviation of the differences.
        n: The number of pairs, at least 2.

    Raises:
        UserError: If `n` is below 2, or `sd` is negative or not finite.

    Example:
        >>> round(detectable_difference(0.3, 6), 3)
        0.43
    """
    (sd,) = finite([sd], "sd").tolist()
    if n < 2 or sd < 0:
        raise UserError(
            f"a detectable difference needs at least 2 pairs and an sd of at least 0; got {n} and"
            f" {sd}"
        )
    critical = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    low, high = 0.0, 1.0
    while power_at(high, n, critical) < POWER:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_at(middle, n, critical) < POWER else (low, middle)
    return high * sd


def power_at(effect: float, n: int, critical: float) -> float:
    """Returns the power of a t-test of n pairs for a true mean of `effect` standard deviations.

    The far tail is left out.
    """
    return 1 - float(nctdtr(n - 1, effect * n**0.5, critical))


def signed_sums(values: np.ndarray) -> np.ndarray:
    """Returns all 2^n sums of the values with any signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def sign_flip_p(differences: Iterable[float]) -> float:
    """Returns the exact two-sided p of the sign-flip test.

    It is the fraction of the 2^n choices of signs whose mean is at least as far from zero. The test
    assumes only that a difference is as likely as its negative, so it checks the t-test. With n
    pairs it cannot fall below 2 / 2^n.

    Raises:
        UserError: If a difference is not finite, or there are none, or more than 40.

    Example:
        >>> sign_flip_p([1.0, 2.0, 3.0])
        0.25
    """
    array = finite(differences, "differences")
    if not 1 <= array.size <= MOST_SIGN_FLIPS:
        raise UserError(
            f"the sign-flip test takes 1 to {MOST_SIGN_FLIPS} differences; got {array.size}"
        )
    # Sums that are equal in exact arithmetic differ by rounding here. They must stay on the same
    # side of the threshold.
    threshold = abs(array.sum()) - 1e-9 * np.abs(array).sum()
    if threshold <= 0:
        return 1.0
    # Two halves have 2^(n/2) sums each; the whole would have 2^n.
    left, right = signed_sums(array[::2]), np.sort(signed_sums(array[1::2]))
    above = right.size - np.searchsorted(right, threshold - left, side="left")
    return float(2 * above.sum() / 2**array.size)  # The negative of each sum is a sum, too.


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's step-down adjustment of p over several contrasts, in the order given.

    The k-th smallest of m is multiplied by m - k + 1. The adjusted values keep the order of p and
    are at most 1.

    Raises:
        UserError: If a p is outside of [0, 1].

    Example:
        >>> holm([0.5, 0.01, 0.25])
        [0.5, 0.03, 0.5]
    """
    array = finite(p_values, "p")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise UserError(f"p must lie in [0, 1]; got {list(p_values)}")
    return step_down(array).tolist()


def step_down(p: np.ndarray) -> np.ndarray:
    """Returns Holm's adjustment within each row of an array (..., m)."""
    order = np.argsort(p, axis=-1, kind="stable")
    steps = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(
        adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=-1)), axis=-1
    )
    return adjusted
