"""Draws what the library reports: on a terminal, in a notebook, or as plain lines.

``ProgressBars`` draws one run. ``LiveStudy`` draws many. Each is a context manager and a callable
for ``on_event``.
"""

from cpsam.progress.bars import ProgressBars
from cpsam.progress.live import LiveStudy

__all__ = ["LiveStudy", "ProgressBars"]
