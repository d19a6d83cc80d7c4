"""Stops on a signal before the first step of a run, between two runs, or after the last step.

A run itself stops after a step, in its own way.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cpsam.errors import STOP_SIGNALS, StoppedError


@contextmanager
def stoppable(resumes: bool = True, program: bool = False) -> Iterator[Callable[[], None]]:
    """Ends on Ctrl-C and, where the work resumes, on every signal of `STOP_SIGNALS`.

    A signal that is already ignored stays ignored. Yields a function that ends if a signal came and
    an import swallowed it.

    Args:
        resumes: Whether the same command continues the work.
        program: Whether the process ends afterwards. Then a second signal changes nothing.

    Raises:
        StoppedError: If a signal came and the work resumes.
        KeyboardInterrupt: If a signal came and the work does not resume.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not received or number == signal.SIGINT:
            received.append(number)
            raise KeyboardInterrupt

    def check() -> None:
        if received:
            raise KeyboardInterrupt

    handled = [
        number
        for number in (STOP_SIGNALS if resumes else (signal.SIGINT,))
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield check
    except BaseException as error:
        if program:
            previous = dict.fromkeys(handled, signal.SIG_IGN)
            for number in handled:
                signal.signal(number, signal.SIG_IGN)
        if isinstance(error, StoppedError | SystemExit) or not (
            received or isinstance(error, KeyboardInterrupt)
        ):
            raise
        if (stop := earlier_stop(error)) is not None:
            raise stop from None
        if resumes:
            raise StoppedError(
                "stopped while no run was at a step; nothing is lost, and the same command"
                " continues"
            ) from None
        raise KeyboardInterrupt from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def earlier_stop(error: BaseException | None) -> StoppedError | None:
    """Returns the stop that a second signal interrupted."""
    while error is not None and not isinstance(error, StoppedError):
        error = error.__context__
    return error
