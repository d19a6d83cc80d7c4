"""What a run writes for TensorBoard, read by TensorBoard itself."""

import json
from pathlib import Path

import pytest
from support.tiny_runs import interrupt, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cpsam.config.run_options import RunOptions
from cpsam.errors import StoppedError

BOARD = RunOptions(tensorboard=True)


def test_the_curves_of_a_run_that_was_stopped_are_whole_and_without_repetition(
    tmp_path: Path,
) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, options=BOARD, on_event=interrupt("epoch", 1))
    run(tmp_path, options=BOARD)
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "loss", "top1", "top5"):
        points = {point.step: point.value for point in shown.Scalars(f"epoch/{name}")}
        assert points == pytest.approx(
            {record["step"]: record[name] for record in records}, rel=1e-6
        )
        assert len(shown.Scalars(f"epoch/{name}")) == len(records)
    assert {"step/loss", "step/lr", "step/images_per_s"} <= set(shown.Tags()["scalars"])
