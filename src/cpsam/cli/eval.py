"""``cpsam eval``: measure a trained run on its data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cpsam.cli.parse import parse
from cpsam.progress import ProgressBars


@dataclass(frozen=True)
class EvalRequest:
    run: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    data_root: Path | None = None
    """Folder of data sets; for --data folder, the tree itself. Default: the environment variable
    CPSAM_DATA.
    """
    split: str = "test"
    """What to measure on: test (the validation split, if the run held one out) or train."""
    json: bool = False
    """Print JSON."""


def run(words: list[str]) -> None:
    asked = parse(EvalRequest, "eval", words, "Measure a trained run on its data.")
    from cpsam.run.evaluate_run import evaluate_run

    with ProgressBars() as progress:
        result = evaluate_run(asked.run, asked.data_root, asked.split, progress)
    if asked.json:
        print(json.dumps(result, indent=1))
    else:
        print(
            f"top-1 {100 * result['top1']:.2f} %  top-5 {100 * result['top5']:.2f} %  loss"
            f" {result['loss']:.4f}  on {result['n']:,} images"
        )
