"""Trains a network of one's own from Python, in a run folder."""

import hashlib
from typing import Any

import torch
from torch import nn

from cpsam.api.arguments import PathLike, as_path, recipe_with, shown
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.insert import attention_config
from cpsam.run.data import load_task, prepare
from cpsam.run.events import OnEvent
from cpsam.run.names import with_known_names
from cpsam.run.objects import qualified_name
from cpsam.run.own_data import own_dataset
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
    with shown(progress, on_event, study=False) as tell:
        name = data if isinstance(data, str) else "own"
        root = as_path(data_root)
        task = with_known_names(Task(data=name, data_root=root, validation=validation))
        if isinstance(data, str):
            dataset = load_task(task, tell).dataset
        else:
            dataset = prepare(task, own_dataset(data, augment, tell), tell).dataset
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
            recipe_with(recipe, fields),
            seed=seed,
            folder=as_path(folder) or "",
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
