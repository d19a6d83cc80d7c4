"""Times several steps in turn on a device, each several times between two events of its queue."""

import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from cpsam.seeds import generator

MOST_CALLS = 100


def seconds_of(step: Callable[[], object], calls: int, device: str) -> float:
    """Returns the seconds per call of calls that follow each other without a wait.

    So it is the longer one of the time that the device computes and the time that the host takes to
    launch it.
    """
    if device == "cpu":
        begin = time.perf_counter()
        for _ in range(calls):
            step()
        return (time.perf_counter() - begin) / calls
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(calls):
        step()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000 / calls


def time_in_turn(
    steps: Mapping[str, Callable[[], object]], rounds: int, milliseconds: float, device: str
) -> dict[str, list[float]]:
    """Returns the milliseconds per call of each step, one number per round.

    Args:
        steps: Name -> what to time. Each is called some times before.
        rounds: Each measures every step once, in a new random order.
        milliseconds: How long one measurement lasts at least, within 100 calls.
        device: "cpu" or "cuda".
    """
    calls: dict[str, int] = {}
    for name, step in steps.items():
        seconds_of(step, 3, device)
        once = max(1e-7, seconds_of(step, 3, device))
        calls[name] = max(1, min(MOST_CALLS, math.ceil(milliseconds / 1000 / once)))
    order, names = generator(0, "latency"), list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for index in order.permutation(len(names)):
            name = names[index]
            times[name].append(1000 * seconds_of(steps[name], calls[name], device))
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Returns the median and the quartiles, with four digits."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    named = {"lower_quartile": low, "median": median, "upper_quartile": high}
    return {name: float(f"{value:.4g}") for name, value in named.items()}


def ratios(
    values: Mapping[str, list[float]], pairs: list[tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Returns the spread of each ratio, taken within a round, of the pairs that were measured."""
    return {
        f"{one} / {other}": spread([a / b for a, b in zip(values[one], values[other], strict=True)])
        for one, other in pairs
        if one in values and other in values
    }
