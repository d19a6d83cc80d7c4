"""Measures a network, or a finished run, from Python."""

from pathlib import Path
from typing import Any

from torch import nn

from cpsam.api.arguments import PathLike, as_path, shown
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.evaluate import evaluate as measure
from cpsam.run.data import load_task
from cpsam.run.evaluate_run import evaluate_run
from cpsam.run.events import OnEvent
from cpsam.run.own_data import own_dataset


def evaluate(
    model: nn.Module | PathLike,
    data: Any = None,
    *,
    split: str = "test",
    data_root: PathLike | None = None,
    network: Any = None,
    block: Any = None,
    batch_size: int = 128,
    progress: bool = True,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Measures top-1, top-5 and loss of a network on a split.

    Args:
        model: A network; or the folder of a finished run, which is measured with its weights.
        data: As in :func:`cpsam.compare`. A run on data with a name finds them itself.
        split: "test" or "train".
        data_root: The folder of data sets.
        network: What makes the network, for a run of a network of one's own.
        block: What makes the blocks, for a run with blocks of one's own.
        batch_size: Images per forward, for a network.
        progress: Show what is loaded.
        on_event: Told of loading.

    Returns:
        ``top1``, ``top5`` and ``loss``, and ``n``, the number of images.

    Raises:
        UserError: If there is no such split, or the arguments do not fit together.
        DataError: If the data is missing, damaged, or not that of the run.
    """
    with shown(progress, on_event, study=False) as tell:
        root = as_path(data_root)
        if isinstance(model, str | Path):
            own = None if isinstance(data, str) else data
            folder = Path(model).expanduser()
            return evaluate_run(folder, root, split, tell, data=own, model=network, block=block)
        if data is None:
            raise UserError("a network is measured on data: give a name or (train, test) as data")
        if isinstance(data, str):
            dataset = load_task(Task(data=data, data_root=root), tell).dataset
        else:
            dataset = own_dataset(data, on_event=tell)
        return measure(model, dataset, split, batch_size=batch_size)
