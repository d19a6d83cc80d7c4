"""Counts what each arm costs in the network of a setting."""

import json

from cpsam.run.arm import Arm
from cpsam.run.cost import Cost, cost_of
from cpsam.run.data import LoadedTask


class Costs:
    """Counts the cost of each arm in one network, which is built once per arm.

    Args:
        loaded: The network and its data.
    """

    def __init__(self, loaded: LoadedTask) -> None:
        self.loaded = loaded
        self.known: dict[str, Cost] = {}
        self.notes: list[str] = []

    def __getitem__(self, arm: Arm) -> Cost:
        key = json.dumps([arm.attention, dict(arm.arguments)], sort_keys=True)
        if key not in self.known:
            widths: list[int] = []
            model = self.loaded.host.build(
                arm, 0, lambda event: self.notes.append(event["text"]), widths.append
            )
            self.known[key] = cost_of(model, self.loaded.input_shape, widths)
        return self.known[key]

    @property
    def heads(self) -> tuple[str, ...]:
        """A line per classifier of pretrained weights: whether it starts anew."""
        if self.loaded.task.weights is None:
            return ()
        notes = [note.removeprefix("weights: ") for note in self.notes]
        found = [note for note in dict.fromkeys(notes) if note.startswith("classifier")]
        return tuple(found) or ("its classifier is kept",)
