"""How fast a run goes and how long it will take, told now and then."""

import time

REPORT_SECONDS = 0.5


class Clock:
    """Counts images and steps of this process.

    Args:
        steps: Steps that are still to be made.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.images = steps, 0, 0
        self.started = self.reported = time.perf_counter()

    def tick(self, images: int) -> dict[str, float] | None:
        """Count a step; after the first one and every half second, `images_per_s` since the last
        answer and `seconds_left`.
        """
        self.done += 1
        self.images += images
        now = time.perf_counter()
        since = now - self.reported
        if since < REPORT_SECONDS and self.done > 1:
            return None
        pace = self.images / max(since, 1e-9)
        self.reported, self.images = now, 0
        return {
            "images_per_s": pace,
            "seconds_left": (now - self.started) / self.done * (self.steps - self.done),
        }
