"""A part of the measurement, and the loop that makes as many parts as the seconds allow."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """Names a measurement.

    Attributes:
        name: What the record calls it.
        seconds: How long it takes on an H100, roughly. It begins only if that much is left.
        measure: Takes the seconds that are left, and returns what it measured as plain data, with
            one line for people under "summary".
    """

    name: str
    seconds: float
    measure: Callable[[float], dict[str, Any]]


class NotHereError(Exception):
    """Says that a part cannot be measured here, which is no failure."""


@dataclass
class Outcome:
    """Holds what was measured, and why other parts were not, each by the name of the part."""

    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure_parts(
    parts: Sequence[Part],
    seconds: float,
    on_part: Callable[[Part, str, Outcome], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Measures the parts in their order, each if the time that is left is enough for it.

    A part that fails does not stop the others.

    Args:
        parts: The most important ones first.
        seconds: How long all parts together may take.
        on_part: Told after each part how it ended, in one line.
        clock: Returns seconds.
    """
    outcome, end = Outcome(), clock() + seconds
    for part in parts:
        started = clock()
        left = end - started
        if part.seconds > left:
            ended = f"takes about {part.seconds:.0f} s, and {max(0, left):.0f} s are left"
            outcome.skipped[part.name] = ended
            on_part(part, f"skipped: {ended}", outcome)
            continue
        try:
            measured = part.measure(left)
            outcome.parts[part.name] = {**measured, "seconds": round(clock() - started, 1)}
            ended = f"{measured['summary']} ({clock() - started:.0f} s)"
        except NotHereError as error:
            outcome.skipped[part.name] = str(error)
            ended = f"skipped: {error}"
        except Exception as error:
            outcome.failed[part.name] = traceback.format_exc(limit=-8)
            ended = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        on_part(part, ended, outcome)
    return outcome
