"""Measures a finished run again, from its weights and its data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cpsam.data import DATASETS
from cpsam.data.sets.torch_dataset import unaugmented
from cpsam.errors import DataError, UserError, unknown
from cpsam.evaluate import SPLITS, evaluate
from cpsam.run.data import load_task, prepare
from cpsam.run.events import OnEvent
from cpsam.run.load_run import read_finished
from cpsam.run.own_data import own_dataset
from cpsam.torch_state import thread_count


def evaluate_run(
    folder: Path | str,
    data_root: Path | None,
    split: str,
    on_event: OnEvent,
    *,
    data: Any = None,
    model: Any = None,
    block: Any = None,
) -> dict[str, Any]:
    """Rebuilds the network of a run from its weights and measures it on the data of the run.

    Args:
        folder: Of the run.
        data_root: The folder of data sets.
        split: "test" or "train".
        on_event: Told of loading.
        data: The data as objects, for a run on data of one's own.
        model: What makes the network, as in :func:`cpsam.run.load_run.load_run`.
        block: What makes the blocks, likewise.

    Raises:
        UserError: If there is no run, or `split` is unknown.
        DataError: If the data is not that of the run, or a file of the run is damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    run = read_finished(folder, model=model, block=block, on_event=on_event)
    stored = run.config.data
    task = replace(run.task, data_root=data_root)
    if data is not None:
        own = own_dataset(data, on_event=on_event)
        plain = replace(own, fingerprint=unaugmented(own.fingerprint))
        loaded = [prepare(task, each, on_event).dataset for each in (own, plain)]
    elif stored.name in DATASETS:
        loaded = [load_task(task, on_event, frozenset(stored.skipped)).dataset]
    else:
        raise UserError(f"the run in {folder} has data of its own, {stored.name}: give them")
    dataset = next((each for each in loaded if each.fingerprint == stored.fingerprint), None)
    if dataset is None:
        where = "given" if data is not None else f"in {data_root}"
        raise DataError(
            f"the data {where} is not what the run in {folder} was trained on: its fingerprint"
            " differs"
        )
    compute = run.config.settled
    with thread_count(compute.threads):
        result = evaluate(
            run.build(dataset.num_classes),
            replace(dataset, mean=tuple(stored.mean), std=tuple(stored.std)),
            split,
            precision=compute.precision,
            channels_last=compute.channels_last,
        )
    return {"schema": 1, "run": str(folder), "split": split, **result}
