"""Measures how fast a run trains, and estimates how long it still takes."""

import time

REPORT_SECONDS = 0.5


class ThroughputMeter:
    """Counts the steps that are made and their images.

    Args:
        steps: Steps that are still to be made.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.images = steps, 0, 0
        self.started = self.reported = time.perf_counter()

    def update(self, images: int) -> tuple[float, float] | None:
        """Counts a step.

        Returns:
            The images per second since the last report, and the seconds left. None if the last
            report is less than half a second old.
        """
        self.done += 1
        self.images += images
        now = time.perf_counter()
        elapsed = now - self.reported
        if elapsed < REPORT_SECONDS and self.done > 1:
            return None
        images_per_s = self.images / max(elapsed, 1e-9)
        self.reported, self.images = now, 0
        return images_per_s, (now - self.started) / self.done * (self.steps - self.done)
