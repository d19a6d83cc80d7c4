"""Trains a network of one's own from Python, in a run folder."""

import hashlib
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cpsam.api.arguments import PathLike, as_path, folder_of, refuse_unknown, shown
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.config.task import Task
from cpsam.data import Dataset
from cpsam.errors import UserError
from cpsam.insert import attention_config
from cpsam.run.build import check_answer
from cpsam.run.data import load_task, prepare
from cpsam.run.events import OnEvent
from cpsam.run.names import with_known_names
from cpsam.run.objects import qualified_name
from cpsam.run.own_data import own_dataset
from cpsam.torch_state import evaluating
from cpsam.train.train import train as train_run


def train(
    model: nn.Module,
    data: Any,
    *,
    folder: PathLike,
    recipe: Recipe | None = None,
    seed: int = 0,
    validation: float = 0.0,
    augment: bool = True,
    data_root: PathLike | None = None,
    options: RunOptions | None = None,
    progress: bool = True,
    on_event: OnEvent | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Trains a network, in place, and keeps the run in a folder.

    The same call continues a run that was interrupted. The run is known by the weights that the
    network starts with, so draw them from the same seed again (``torch.manual_seed``).

    Args:
        model: The network.
        data: As in :func:`cpsam.compare`.
        folder: New or empty, or of this very run.
        recipe: How to train.
        seed: Of order, augmentation, mixing and dropout.
        validation: Hold out this fraction of the train split and measure on it.
        augment: Shift images of bytes at random, and mirror them; for data as objects.
        data_root: The folder of data sets.
        options: When to save and to stop.
        progress: Draw progress on a terminal and in a notebook, print lines elsewhere.
        on_event: Called with what happens, as in :func:`cpsam.train.train.train`.
        **fields: Fields of the recipe, such as ``epochs=8`` or ``lr=0.1``.

    Returns:
        The summary: `top1`, `top5` and `loss` of the last epoch, `best`, and more.

    Raises:
        UserError: If the folder holds something else, or an argument does not fit.
        DataError: If the data is missing or damaged.
        DivergedError: If a loss or a gradient is not finite.
        StoppedError: On Ctrl-C; the same call continues.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    refuse_unknown(train, fields, Recipe)
    target = folder_of(folder)
    with shown(progress, on_event, study=False) as tell:
        name = data if isinstance(data, str) else "own"
        root = as_path(data_root)
        task = with_known_names(Task(data=name, data_root=root, validation=validation))
        if isinstance(data, str):
            dataset = load_task(task, tell).dataset
        else:
            dataset = prepare(task, own_dataset(data, augment, tell), tell).dataset
        check_input(model, dataset)
        blocks = sorted({entry["attention"] for entry in attention_config(model, complete=False)})
        # What the first lines say of the network, as for a run that the command line makes.
        about = {
            "model": type(model).__name__,
            "attention": ", ".join(blocks),
            "weights": None,
            "new_head": False,
        }
        return train_run(
            model,
            dataset,
            replace(recipe or Recipe(), **fields),
            seed=seed,
            folder=target,
            config={
                "model": qualified_name(type(model)),
                "initial_weights_sha256": hash_state(model),
                "validation": validation,
            },
            on_event=lambda event: tell({**event, **about}),
            options=options,
        )


def hash_state(model: nn.Module) -> str:
    """Returns a hash of the names and the values of a network's state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_input(model: nn.Module, dataset: Dataset) -> None:
    """Refuses a network that does not answer an image of the data with one logit per class.

    Raises:
        UserError: If it does not.
    """
    shape = dataset.in_channels, *dataset.image_size
    like = next(model.parameters(), torch.empty(0))
    with evaluating(model), torch.no_grad():
        check_answer(model, torch.zeros(2, *shape, device=like.device), dataset.num_classes)
