"""Signals that come before the first step of a run, between two runs, or after the last; the steps have their own way of stopping."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cpsam.errors import StoppedError


@contextmanager
def stoppable() -> Iterator[None]:
    """Leave on Ctrl-C, SIGTERM and SIGUSR1; one that is ignored stays ignored.

    Raises:
        StoppedError: If one came.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heard = [number for number in (signal.SIGTERM, signal.SIGUSR1) if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("stopped while no run was at a step; nothing is lost, and the same command continues") from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
