"""What a run tells while it is made: small dicts whose "event" names the kind."""

from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignores what a run tells."""


def as_progress(on_event: OnEvent) -> Callable[[str, int, int], None]:
    """Returns a callable that tells how much of something is done as an event."""
    return lambda what, done, total: on_event(
        {"event": "data", "what": what, "done": done, "total": total}
    )


def as_note(on_event: OnEvent) -> Callable[[str], None]:
    """Returns a callable that tells a line of text as an event."""
    return lambda text: on_event({"event": "note", "text": text})
