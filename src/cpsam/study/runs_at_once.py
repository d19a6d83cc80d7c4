"""Decides how many runs of a study this machine executes at once."""

import heapq
from collections.abc import Iterable

from cpsam.config.ranges import MOST_RUNS_AT_ONCE
from cpsam.data.parallel import cpu_count
from cpsam.errors import UserError
from cpsam.study.plan import Plan
from cpsam.study.run_reader import RunReader
from cpsam.train.compute import find_device


def choose_runs_at_once(asked: int, plan: Plan, read: RunReader) -> int:
    """Returns how many runs to execute at once, at least 1 and at most the runs that are left.

    Args:
        asked: How many a person asks for. 0: as many as the processors divided by the threads of a
            run, and one on a GPU.
        plan: The study.
        read: Reads its runs.

    Raises:
        UserError: If `asked` is no such number.
    """
    if type(asked) is not int or not 0 <= asked <= MOST_RUNS_AT_ONCE:
        raise UserError(
            f"runs_at_once must be a whole number from 0 to {MOST_RUNS_AT_ONCE:,}; got {asked!r}"
        )
    left = sum(not read.has_ended(spec.folder_name) for spec in plan.runs)
    if asked == 0 and find_device().type == "cpu":
        asked = cpu_count() // max(spec.threads for spec in plan.runs)
    return max(1, min(asked, left))


def seconds_together(seconds: Iterable[float], at_once: int) -> float:
    """Returns how long runs take if a new one begins whenever one of so many ends.

    Example:
        >>> seconds_together([3.0, 1.0, 2.0, 4.0], at_once=2)
        7.0
    """
    ends = [0.0] * at_once
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
