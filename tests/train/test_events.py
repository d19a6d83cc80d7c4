"""What a run reports has the fields that its type says."""

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from support.tiny_runs import interrupt, run

from cpsam.errors import StoppedError
from cpsam.train.events import Event

KINDS = {get_args(get_type_hints(kind)["event"])[0]: kind for kind in get_args(Event)}


def test_each_event_has_the_fields_of_its_type(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(StoppedError):
        run(tmp_path, on_event=lambda event: (events.append(event), interrupt("epoch", 1)(event)))
    run(tmp_path, on_event=events.append)
    assert {event["event"] for event in events} == KINDS.keys() - {"spike"}
    for event in events:
        assert event.keys() == get_type_hints(KINDS[event["event"]]).keys(), event["event"]
