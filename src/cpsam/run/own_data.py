"""Takes the data of a run as a name or as Python objects."""

from typing import Any

from cpsam.data import Dataset, StreamedSplit
from cpsam.data.sets.torch_dataset import from_torch
from cpsam.errors import UserError
from cpsam.run.events import OnEvent, as_progress, silent
from cpsam.run.objects import Versioned, unwrap


def own_dataset(data: Any, augment: bool = True, on_event: OnEvent = silent) -> Dataset:
    """Returns the data set that an object stands for.

    Args:
        data: A :class:`cpsam.data.Dataset`, or a pair of torch Datasets to train and to measure on;
            with a version, the version identifies the samples in place of their hash.
        augment: Shift bytes at random, and mirror them; not for a :class:`cpsam.data.Dataset`.
        on_event: Told how many samples are read.

    Raises:
        UserError: If it is none of these.
        DataError: If a sample is not an image with a label.
    """
    pair = unwrap(data)
    if isinstance(pair, Dataset):
        if isinstance(pair.train, StreamedSplit):
            raise UserError(
                "data that are streamed are given by name, with data_root, because their images"
                " depend on the transform too"
            )
        return pair
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UserError(
            "data must be a name, a pair (train, test) of data sets, or what cpsam.load_dataset"
            f" returns; got {type(pair).__name__}"
        )
    return from_torch(
        pair[0],
        pair[1],
        augment=augment,
        version=data.version if isinstance(data, Versioned) else None,
        on_progress=as_progress(on_event),
    )
