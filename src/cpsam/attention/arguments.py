"""Checks that all constructors of blocks share."""

from collections.abc import Iterable
from difflib import get_close_matches


def hidden_channels(in_channels: int, reduction: int) -> int:
    """The width of a bottleneck, ``max(8, in_channels // reduction)``.

    Never below 8: a layer norm over one or two values returns constants, so a reduction of 16 on 32
    channels would be a block that cannot learn.

    Raises:
        ValueError: If `in_channels` or `reduction` is below 1.
    """
    check_at_least_one(in_channels=in_channels, reduction=reduction)
    return max(8, in_channels // reduction)


MOST = 2**16  # No network is wider, and a slip of the keyboard shall not take all memory.


def check_at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1; got {number!r}")
        if number > MOST:
            raise ValueError(f"{name} must be at most {MOST:,}; got {number:,}")


def check_choice(name: str, given: str, choices: Iterable[str]) -> None:
    if given not in (names := sorted(choices)):
        near = get_close_matches(str(given), names, n=1)
        raise ValueError(
            f"{name} must be one of {', '.join(names)}; got {given!r}"
            + (f", did you mean {near[0]!r}?" if near else "")
        )
