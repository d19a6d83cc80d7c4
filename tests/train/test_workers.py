"""A run on streamed images ends with the same bits for any number of loading processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import FULL, tiny_residual
from support.tiny_runs import assert_same_run
from torch import nn

from cpsam.data import load_dataset
from cpsam.errors import StoppedError
from cpsam.train import Recipe
from cpsam.train.train import train


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    for split, count in (("train", 31), ("val", 11)):
        for index in range(count):
            path = root / split / "abcdefg"[index % 7] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = draw.integers(9, 30, 2)
            Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return root


def network() -> nn.Module:
    """Returns a network for images of three channels."""
    model = tiny_residual()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model[0] = nn.Conv2d(3, 5, 3, padding=1)
    return model


@pytest.mark.parametrize(("precision", "counts"), [("float32", (0, 1, 2, 4)), ("bfloat16", (0, 2))])
def test_the_bits_do_not_depend_on_who_loads(
    tmp_path: Path,
    pictures: Path,
    precision: str,
    counts: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cpsam.train.throughput.REPORT_SECONDS", 0.0)
    recipe = Recipe(**{**FULL, "epochs": 2, "precision": precision})  # pyrefly: ignore

    def run(name: str, workers: int, stop_at: int | None = None) -> nn.Module:
        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "step" and event["step"] == stop_at:
                raise KeyboardInterrupt

        model = network()
        data = load_dataset("folder", pictures, image_size=12, stream=True, workers=workers)
        train(
            model,
            data,
            recipe,
            seed=3,
            folder=tmp_path / name,
            config={},
            device="cpu",
            on_event=on_event,
        )
        return model

    reference = run("whole", 0)
    for workers in counts:
        if workers:
            assert_same_run(
                tmp_path / f"whole-{workers}",
                run(f"whole-{workers}", workers),
                tmp_path / "whole",
                reference,
            )
        with pytest.raises(StoppedError):
            run(f"parts-{workers}", workers, stop_at=1 + workers)
        # Another number of loading processes continues the run.
        model = run(f"parts-{workers}", counts[-1] - workers)
        assert_same_run(tmp_path / f"parts-{workers}", model, tmp_path / "whole", reference)
