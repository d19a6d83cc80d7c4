"""``cpsam eval``: measure a trained run on its data."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from cpsam.cli.verb import Verb


@dataclass(frozen=True)
class EvalRequest:
    run: Path = field(metadata={"positional": True})
    """A run folder."""
    data_root: Path | None = None
    """Folder of data sets; for images in folders, the tree itself. Default: the environment
    variable CPSAM_DATA.
    """
    split: str = field(default="test", metadata={"choices": ("test", "train")})
    """What to measure on: test (the validation split, if the run held one out) or train."""
    json: bool = False
    """Print JSON."""


VERB = Verb(
    "eval",
    EvalRequest,
    "Measure a trained run on its data.",
    {
        "measure a run on the images that it was measured on before": "cpsam eval runs/first",
        "measure it on its train split": "cpsam eval runs/first --split train",
    },
    first=("data_root", "split", "json"),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    from cpsam.progress import ProgressBars
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
