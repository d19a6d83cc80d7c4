"""The training loop as an object."""

from pathlib import Path
from typing import Any

import pytest
from support.tiny import FULL, tiny_residual
from support.tiny_runs import run

from cpsam.train import Recipe
from cpsam.train.loop import Training


def test_a_training_is_complete_when_it_is_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: list[dict[str, list[str]]] = []

    def note_fields(training: Training) -> None:
        parts = {"training": training, **vars(training)}
        fields.append(
            {name: sorted(vars(part)) for name, part in parts.items() if hasattr(part, "__dict__")}
        )

    def spied(self: Training, whole: Any = Training.run) -> dict[str, Any]:
        note_fields(self)
        summary = whole(self)
        note_fields(self)
        return summary

    monkeypatch.setattr(Training, "run", spied)
    run(tmp_path, tiny_residual(), Recipe(**FULL))
    before, after = fields
    assert after == before
    assert {"training", "train_step", "checkpoints", "state", "throughput"} <= before.keys()
