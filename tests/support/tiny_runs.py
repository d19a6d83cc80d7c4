"""Makes, stops and compares runs of the tiny network."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpsam.train import Recipe
from cpsam.train.events import Event
from cpsam.train.train import train
from support.tiny import RECIPE, tiny_dataset, tiny_model


def run(
    folder: Path,
    model: nn.Module | None = None,
    recipe: Recipe = RECIPE,
    seed: int = 5,
    **options: Any,
) -> dict[str, Any]:
    return train(
        model or tiny_model(),
        tiny_dataset(),
        recipe,
        seed=seed,
        folder=folder,
        config={"what": "tiny"},
        device="cpu",
        **options,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl` without their timing."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


def interrupt(kind: str, epoch: int) -> Any:
    """Returns an `on_event` that stops the run at the first event of a kind in an epoch.

    It raises what Ctrl-C in a progress bar would raise.
    """

    def on_event(event: Event) -> None:
        if event["event"] == kind and event["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_event


def assert_same_run(folder: Path, model: nn.Module, other: Path, reference: nn.Module) -> None:
    assert records(folder) == records(other)
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (folder, other)]
    assert len({json.dumps({**summary, "timing": None}) for summary in summaries}) == 1
