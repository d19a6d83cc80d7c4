"""Data sets, held as bytes or streamed from files, and batches of them."""

from cpsam.data.batches import eval_batches, normalise, rank_slice, train_batches, train_indices
from cpsam.data.dataset import Dataset
from cpsam.data.holdout import hold_out
from cpsam.data.load import DATASETS, load_dataset
from cpsam.data.split import OnProgress, Split
from cpsam.data.streamed_split import StreamedSplit

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
