"""Values as a person reads them."""

from collections.abc import Mapping, Sequence

from cpsam.report.records import Difference, Latency
from cpsam.statistics import PairedDifference, Summary

MINUS, MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"
UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
SECONDS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def words(value: object) -> str:
    """Returns a value of a configuration in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else str(value)


def numbered(number: int, what: str) -> str:
    """Returns a number of things.

    Example:
        >>> numbered(1, "seed"), numbered(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{number} {what}{'s' * (number != 1)}"


def count(number: float | None) -> str:
    """Returns a count with its unit and four digits, so that a block shows beside its network.

    Example:
        >>> count(40_811_234)
        '40.81 M'
    """
    if number is None:
        return MISSING
    size, unit = next(((size, unit) for size, unit in UNITS if number >= size), (1, ""))
    return f"{number / size:.{4 - len(str(int(number // size)))}f} {unit}" if unit else str(number)


def percent(fraction: float | None) -> str:
    """Returns a fraction in percent, without the sign: 0.934 is ``93.40``."""
    return MISSING if fraction is None else f"{100 * fraction:.2f}"


def points(difference: float) -> str:
    """Returns a difference of fractions in percentage points, with its sign: ``+0.52``."""
    return f"{100 * difference:+.2f}".replace("-", MINUS)


def mean_words(top1: Summary) -> str:
    """Returns ``93.40 ± 0.12``; one seed has no spread."""
    return percent(top1.mean) + ("" if top1.sd is None else f" ± {percent(top1.sd)}")


def difference_words(difference: Difference | PairedDifference | None, runs: int) -> str:
    """Returns ``+0.52 [-0.10, +1.14]``, with n where it is not the number of `runs` in the row."""
    if difference is None or difference.mean is None:
        return MISSING
    if difference.low is None or difference.high is None:
        interval = "(one seed)" if difference.n == 1 else "(each seed the same)"
    else:
        interval = f"[{points(difference.low)}, {points(difference.high)}]"
    pairs = "" if difference.n == runs else f" (n = {difference.n})"
    return f"{points(difference.mean)} {interval}{pairs}"


def latency_words(latency: Latency | None) -> str:
    """Returns median and quartiles: ``12.3 (12.1-12.8)``."""
    if latency is None:
        return MISSING
    digits = 2 if latency.median < 10 else 1
    median, q1, q3 = (f"{each:.{digits}f}" for each in (latency.median, latency.q1, latency.q3))
    return f"{median} ({q1}\N{EN DASH}{q3})"


def loss_words(loss: float | None) -> str:
    return MISSING if loss is None else f"{loss:.4f}"


def p_words(p: float | None) -> str:
    """Returns ``0.031`` or ``< 0.001``."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def place_words(places: Sequence[str]) -> str:
    """Returns module paths; of more than three, their number and the first and the last."""
    few = len(places) < 4
    return words(places) if few else f"{len(places)} places, {places[0]} to {places[-1]}"


def duration(seconds: float) -> str:
    """Returns a time in its two largest units, to the second.

    Example:
        >>> duration(3785), duration(40), duration(200_000), duration(119.7)
        ('1 h 3 min', '40 s', '2 d 7 h', '2 min 0 s')
    """
    left, parts = round(seconds), []
    for name, size in SECONDS:
        whole, left = divmod(left, size)
        if parts or whole or size == 1:
            parts.append(f"{whole} {name}")
    return " ".join(parts[:2])


def unbroken(sentence: str) -> str:
    """Returns a sentence in which each number stays on the line of its unit or name."""
    return (
        sentence.replace("top-1", "top\N{NON-BREAKING HYPHEN}1")
        .replace(" %", "\N{NO-BREAK SPACE}%")
        .replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    )
