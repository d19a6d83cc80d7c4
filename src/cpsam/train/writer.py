"""Writing beside the computation."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Does one piece of work at a time in a thread of its own; whoever comes with the next waits
    for the last.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "writer")
        self.work: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Wait for what is being written, then write this.

        Raises:
            OSError: If the last work failed.
        """
        self.join()
        self.work = self.pool.submit(work)

    @property
    def failed(self) -> bool:
        return self.work is not None and self.work.done() and self.work.exception() is not None

    def join(self) -> None:
        """Wait for what is being written.

        Raises:
            OSError: If it failed; told once.
        """
        work, self.work = self.work, None
        if work is not None:
            work.result()
