"""What training leaves of a run, for tests of those who read it."""

from pathlib import Path
from typing import Any

from cpsam.files import write_json
from cpsam.run.spec import RunSpec
from cpsam.train.run_config import CONFIG, plain
from cpsam.train.run_folder import RunFolder

TIMING = {"train_seconds": 1.0, "evaluation_seconds": 1.0, "images_per_s": 1.0}
NUMBERS = {"train_loss": 2.0, "top1": 0.5, "top5": 1.0, "loss": 1.0, "n": 10}


def begin(spec: RunSpec, folder: Path) -> RunFolder:
    """Writes the configuration of a run."""
    folder.mkdir(exist_ok=True)
    config = plain({**spec.content, "dataset": {}, "settled": {}})
    write_json(folder / CONFIG, config)
    return RunFolder(folder, config)


def add_epoch(run: RunFolder, **numbers: Any) -> None:
    """Appends the metrics of an epoch."""
    run.add_record({"epoch": 1, "step": 1, "lr": 0.1, **NUMBERS, **numbers, "timing": TIMING})


def finish(spec: RunSpec, folder: Path, **numbers: Any) -> dict[str, Any]:
    """Writes the configuration and the summary of a run of one epoch; `numbers` are fields of the
    summary.
    """
    summary: dict[str, Any] = {"epochs": 1, "steps": 1, **NUMBERS, **numbers}
    return begin(spec, folder).finish(
        {**summary, "best": {"epoch": 1, "top1": summary["top1"]}, "timing": TIMING}
    )
