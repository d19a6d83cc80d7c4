"""Stops a run between two steps, on a signal or when its time is over."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from cpsam.errors import STOP_SIGNALS


class Stop(Exception):
    """Leaves the loop. Every process of a run raises it at the same step."""


class StopRequest:
    """A context in which a signal only sets a flag. A second Ctrl-C acts at once.

    A second signal of another kind changes nothing: launchers and batch systems repeat each other's
    signals. Python catches signals in the main thread alone, so this does nothing in another one. A
    signal that is ignored already stays ignored.

    Args:
        max_minutes: The flag is also set after so many minutes; 0: never.
        echoes: Whether a launcher may repeat a Ctrl-C that came from the terminal, so that a second
            one must not act at once.

    Raises:
        Stop: On leaving, if a signal came after the flag was last read, so that it is not lost.
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
