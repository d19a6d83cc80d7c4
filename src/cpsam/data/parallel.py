"""Works on images in parallel.

Decoders release the interpreter's lock while they run, so threads are enough.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

MAX_WORKERS = 16
CGROUP = Path("/sys/fs/cgroup")

T = TypeVar("T")
R = TypeVar("R")


def cpu_count() -> int:
    """Returns the number of processors that this process may use.

    A scheduler, ``taskset`` or a container may limit it, to some processors or to a share of time.
    """
    there = os.cpu_count() or 1
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return max(1, min(ours, cpu_quota(CGROUP) or ours))


def cpu_quota(cgroup: Path) -> int | None:
    """Returns how many processors a container may keep busy, rounded up; None if any number.

    Args:
        cgroup: Where the system says what the group of this process may use.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return math.ceil(int(quota) / int(period)) if int(quota) > 0 else None
        except (OSError, ValueError):  # There is no such file, or "max" for no limit.
            continue
    return None


def default_workers() -> int:
    """Returns the number of processes that load images.

    If several processes of this machine train, they divide the processors among them.
    """
    return max(1, min(cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1), MAX_WORKERS))


def map_ordered(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Maps on threads, in order.

    Only a few items are read ahead, so the results of a large data set never fill the memory.

    Example:
        >>> list(map_ordered(abs, [-3, 2, -1]))
        [3, 2, 1]
    """
    workers = cpu_count()
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
