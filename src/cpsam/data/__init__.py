"""Data sets held as bytes, and batches of them."""

from cpsam.data.batches import eval_batches, normalise, train_batches, train_indices
from cpsam.data.dataset import Dataset, Progress, Split
from cpsam.data.holdout import hold_out
from cpsam.data.load import DATASETS, load_dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "Progress",
    "Split",
    "eval_batches",
    "hold_out",
    "load_dataset",
    "normalise",
    "train_batches",
    "train_indices",
]
