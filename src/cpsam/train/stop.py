"""Stopping at a step, not in the middle of one: on a signal, or when the time is over."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from cpsam.errors import STOP_SIGNALS


class Stop(Exception):
    """Leave the loop now; every process of a run raises it at the same step."""


class StopRequest:
    """While entered, a signal only sets a flag. A second Ctrl-C acts at once.

    A second signal of another kind changes nothing: launchers and batch systems repeat each
    other's. Signals can be caught in the main thread alone; elsewhere this does nothing. One that
    is ignored already stays ignored.

    Args:
        max_minutes: The flag is also set when so many minutes have passed; 0: never.
        echoes: Whether a launcher may pass on a Ctrl-C that came from the terminal already, so that
            the second is none.

    Raises:
        Stop: On leaving, if it was requested after the last look at the flag, so that it is not
            swallowed.
    """

    def __init__(self, max_minutes: float = 0.0, echoes: bool = False) -> None:
        self.end = time.monotonic() + 60 * max_minutes if max_minutes else float("inf")
        self.echoes = echoes
        self.signalled = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.previous[number] = signal.signal(number, self.on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if error is None and self.signalled:
            raise Stop

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signalled and number == signal.SIGINT and not self.echoes:
            raise KeyboardInterrupt
        self.signalled = True

    @property
    def requested(self) -> bool:
        return self.signalled or time.monotonic() > self.end
