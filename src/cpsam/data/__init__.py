"""Data sets held as bytes or streamed, and batches of them.

The public names load what they need when they are first used, so that a command line can build its
flags from `transform` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpsam.data.batches import eval_batches, normalise, rank_slice, train_batches, train_indices
    from cpsam.data.dataset import Dataset
    from cpsam.data.holdout import hold_out
    from cpsam.data.load import DATASETS, load_dataset
    from cpsam.data.loader.stream import StreamedSplit
    from cpsam.data.split import OnProgress, Split

PUBLIC = {
    "DATASETS": "load",
    "Dataset": "dataset",
    "OnProgress": "split",
    "Split": "split",
    "StreamedSplit": "loader.stream",
    "eval_batches": "batches",
    "hold_out": "holdout",
    "load_dataset": "load",
    "normalise": "batches",
    "rank_slice": "batches",
    "train_batches": "batches",
    "train_indices": "batches",
}

__all__ = [
    "DATASETS",
    "Dataset",
    "OnProgress",
    "Split",
    "StreamedSplit",
    "eval_batches",
    "hold_out",
    "load_dataset",
    "normalise",
    "rank_slice",
    "train_batches",
    "train_indices",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'cpsam.data' has no attribute {name!r}")
    return getattr(import_module(f"cpsam.data.{PUBLIC[name]}"), name)
