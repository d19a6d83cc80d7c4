"""Stopping on Ctrl-C and SIGTERM at a step, not in the middle of one."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal:
    """While entered, the first signal only sets a flag, which :meth:`check` turns into a KeyboardInterrupt; the second acts at once.

    Signals can be caught in the main thread alone; elsewhere this does nothing. One that is ignored already stays ignored.

    Raises:
        KeyboardInterrupt: On leaving, if a signal came after the last check, so that it is not swallowed.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.previous[number] = signal.signal(number, self.request)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.restore()
        if error is None:
            self.check()

    def request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.restore()

    def restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous.clear()

    def check(self) -> None:
        if self.requested:
            raise KeyboardInterrupt
