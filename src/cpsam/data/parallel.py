"""Works on images in parallel.

Decoders release the interpreter's lock while they run, so threads are enough.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MAX_WORKERS = 16

T = TypeVar("T")
R = TypeVar("R")


def cpu_count() -> int:
    """Returns the number of processors that this process may use, as a container may limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
