"""One call that makes a run: begins or continues it in its folder, and says in words how it
ended.
"""

import errno
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.data.dataset import Dataset
from cpsam.errors import StoppedError, UserError
from cpsam.train.compute import Compute, choose_compute, reproducible
from cpsam.train.distributed import Distributed, is_lost_peer
from cpsam.train.loop import Event, Training
from cpsam.train.run_folder import (
    CONFIG,
    SETTLED,
    TENSORBOARD,
    RunFolder,
    finished_summary,
    open_run,
)
from cpsam.train.stop import Stop
from cpsam.train.tensorboard import Board

RESERVED = ("seed", "recipe", "dataset", SETTLED)
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path | str,
    config: Mapping[str, Any],
    on_event: Callable[[Event], None] | None = None,
    device: torch.device | str | None = None,
    options: RunOptions | None = None,
    distributed: Distributed | None = None,
) -> dict[str, Any]:
    """Train a model and keep the run in a folder; the same call again continues where it was
    stopped or killed.

    A run that was interrupted ends with the same bits, weights and metrics, as one that was not, on
    the same kind of processor with the same number of processes. A finished run is not repeated:
    its summary is read, and the model is left as it is (its trained weights are in
    `weights.safetensors`).

    Args:
        model: Trained in place, on `device`. Its initial weights must be the same in a call that
            continues a run.
        dataset: Trained on its train split, measured after every epoch on its test split.
        recipe: How.
        seed: Of order, augmentation, mixing and dropout, at least 0.
        folder: New or empty, or of this very run.
        config: What else makes the run what it is, as plain data, such as how the model was made.
            Stored in `config.json`.
        on_event: Called in process 0 with small dicts, whose "event" is

            - "start": `data` with `train_images`, `test_images` and `classes`; `parameters` of the
              network and the `places` of its blocks; `device`, `precision`, `channels_last`,
              `threads`, `processes`; `epochs` and `steps`;
            - "resumed": `step` of `steps` made before, `epoch` finished before, and `warnings`
              about checkpoints that were damaged;
            - "step", at most twice a second: `epoch`, `epochs`, `step`, `steps`, `lr`, `loss`,
              `images_per_s`, `seconds_left`;
            - "spike": `step`, its `loss`, and the `usual` one;
            - "evaluation": `epoch`, `epochs`, `images` done, `of` how many;
            - "epoch": the line of `metrics.jsonl`, and `epochs`.

            It may raise KeyboardInterrupt to stop the run.
        device: "cpu" or "cuda"; by default the GPU if there is one.
        options: When to save and to stop.
        distributed: The processes that train together, from
            :func:`cpsam.train.distributed.process_group`; by default this one alone.

    Returns:
        The content of `summary.json`: `epochs`, `steps`, `train_loss`, `top1`, `top5`, `loss` and
        `n` of the last epoch, `best`, the epoch of the highest `top1`, and `timing`.

    Raises:
        UserError: If the folder holds something else, is in use by another process, or cannot be
            written.
        DivergedError: If a loss or the gradient is not finite; the optimizer has not moved on it.
        StoppedError: On Ctrl-C, another signal of `STOP_SIGNALS`, or when the time is over; the
            step that was reached is kept.
        DataError: If the folder is damaged beyond what can be fallen back to.
    """
    if taken := [name for name in RESERVED if name in config]:
        raise ValueError(f"config must not have the key {taken[0]!r}, which the run writes itself")
    options, distributed = options or RunOptions(), distributed or Distributed()
    target = distributed.local_device(device)
    path, described = (
        Path(folder),
        describe(dataset, recipe, seed, config, choose_compute(recipe, target)),
    )
    tell = on_event if on_event is not None and distributed.is_main else silent
    board = Board(path / TENSORBOARD) if options.tensorboard and distributed.is_main else None
    with ExitStack() as stack:
        held: list[RunFolder] = []

        def begin() -> dict[str, Any]:
            if (summary := finished_summary(path, described)) is not None:
                return {"summary": summary}
            held.append(stack.enter_context(open_run(path, described)))
            return {"summary": held[0].summary, "config": held[0].config}

        begun = distributed.run_on_main(begin)
        if begun["summary"] is not None:
            return begun["summary"]
        run = held[0] if held else RunFolder(path, begun["config"])
        compute = Compute.parse(run.config.get(SETTLED), f"{path / CONFIG}: {SETTLED}")
        if compute.device != target.type:
            raise UserError(
                f"run folder {path} holds a run on {compute.device}, and this is {target.type}: the"
                " bits would not be the same"
            )
        training = Training(
            model, dataset, recipe, seed, run, compute, target, tell, options, distributed, board
        )
        try:
            with training.request, reproducible(compute, target):
                return training.run_all()
        except (Stop, KeyboardInterrupt):
            said = (
                f"stopped after step {training.step} of {training.steps}; {training.keeper.newest}"
                f" ({path})"
            )
            raise distributed.mark_as_shared(
                StoppedError(f"{said}, and the same command continues")
            ) from None
        except OSError as error:
            if error.errno not in CANNOT_WRITE:
                raise
            raise UserError(
                f"run folder {path} cannot be written ({error.strerror}); {training.keeper.newest}"
            ) from error
        except RuntimeError as error:
            if distributed.world_size == 1 or not is_lost_peer(error):
                raise
            raise StoppedError(
                "another process of this run has ended; its message says why, and the same command"
                " continues"
            ) from error


def silent(event: Event) -> None:
    pass


def describe(
    dataset: Dataset, recipe: Recipe, seed: int, config: Mapping[str, Any], compute: Compute
) -> dict[str, Any]:
    """The content of `config.json`."""
    data = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "test": len(dataset.evaluation),
    }
    return {
        **config,
        "seed": seed,
        "recipe": recipe.to_dict(),
        "dataset": data,
        SETTLED: asdict(compute),
    }
