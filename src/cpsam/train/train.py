"""The call that makes a run: it begins or continues it in its folder, and says how it ended."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.data.dataset import Dataset
from cpsam.errors import StoppedError, UserError
from cpsam.train.checkpointing import CheckpointManager, TrainState
from cpsam.train.compute import Compute, choose_compute, deterministic, reproducible
from cpsam.train.context import TrainContext
from cpsam.train.distributed import Distributed, is_lost_peer
from cpsam.train.ema import Ema
from cpsam.train.environment import environment
from cpsam.train.events import Event, OnEvent
from cpsam.train.loop import Training
from cpsam.train.regularise import regularised
from cpsam.train.run_config import CONFIG, SETTLED
from cpsam.train.run_folder import TENSORBOARD, RunFolder, finished_summary, open_run
from cpsam.train.step import TrainStep
from cpsam.train.stop import Stop, StopRequest
from cpsam.train.sync_norm import synchronised_norms
from cpsam.train.tensorboard import TensorBoardLogger, import_writer

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
    on_event: OnEvent | None = None,
    device: torch.device | str | None = None,
    options: RunOptions | None = None,
    distributed: Distributed | None = None,
) -> dict[str, Any]:
    """Trains a model and keeps the run in a folder.

    The same call continues a run that was stopped or killed.

    A run that was interrupted ends with the same bits, weights and metrics, as one that was not, on
    the same kind of processor with the same number of processes. A finished run is not repeated:
    its summary is read, and the model is left as it is. Its trained weights are in
    `weights.safetensors`.

    Args:
        model: Trained in place, on `device`. A call that continues a run must give the same initial
            weights.
        dataset: Its train split is trained on, and its evaluation split measured after every epoch.
        recipe: How the model is trained.
        seed: Seed of order, augmentation, mixing and dropout, at least 0.
        folder: New or empty, or the folder of this very run.
        config: What else makes the run what it is, as plain data, such as how the model was made.
            Stored in `config.json`.
        on_event: Receives in the main process each event of :mod:`cpsam.train.events`. It may raise
            KeyboardInterrupt to stop the run.
        device: "cpu" or "cuda"; by default the GPU if there is one.
        options: When to save and when to stop.
        distributed: The processes that train together, from
            :func:`cpsam.train.launcher.process_group`; by default this one alone.

    Returns:
        The content of `summary.json`. It has `epochs` and `steps`; `train_loss`, `top1`, `top5`,
        `loss` and `n` of the last epoch; `best`, the epoch of the highest `top1`; and `timing`.

    Raises:
        UserError: If the folder holds something else, is in use by another process, or cannot be
            written.
        DivergedError: If a loss or a gradient is not finite. Its step is not applied.
        StoppedError: On Ctrl-C, on another signal of `STOP_SIGNALS`, or when the time is over. The
            step that was reached is saved.
        DataError: If the folder is damaged beyond what an older checkpoint can replace.
    """
    if taken := [name for name in RESERVED if name in config]:
        raise ValueError(f"config must not have the key {taken[0]!r}, which the run writes itself")
    options, distributed = options or RunOptions(), distributed or Distributed()
    if options.tensorboard and distributed.is_main:
        import_writer()
    target, path = distributed.local_device(device), Path(folder)
    described = describe(dataset, recipe, seed, config, choose_compute(recipe, target))
    with ExitStack() as stack:
        opened: list[RunFolder] = []

        def begin() -> dict[str, Any]:
            if (summary := finished_summary(path, described)) is not None:
                return {"summary": summary}
            opened.append(stack.enter_context(open_run(path, described)))
            return {"summary": opened[0].summary, "config": opened[0].config}

        begun = distributed.run_on_main(begin)
        if begun["summary"] is not None:
            return begun["summary"]
        run = opened[0] if opened else RunFolder(path, begun["config"])
        compute = Compute.parse(run.config.get(SETTLED), f"{path / CONFIG}: {SETTLED}")
        if compute.device != target.type:
            raise UserError(
                f"run folder {path} holds a run on {compute.device}, and this is {target.type}: the"
                " bits would not be the same"
            )
        images = dataset if recipe.augment else dataset.unaugmented()
        context = TrainContext(model, images, recipe, seed, run, compute, target, distributed)
        state = TrainState()
        stop_request = StopRequest(options.max_minutes, echoes=distributed.launched)
        try:
            with (
                stop_request,
                reproducible(compute, target),
                deterministic(target) if options.deterministic else nullcontext(),
                prepared(context, state, options, stop_request, on_event) as training,
            ):
                return training.run()
        except (Stop, KeyboardInterrupt):
            raise distributed.mark_as_shared(
                StoppedError(
                    f"stopped after step {state.step} of {context.steps}; {run.newest_checkpoint}"
                    f" ({path}), and the same command continues"
                )
            ) from None
        except OSError as error:
            if error.errno not in CANNOT_WRITE:
                raise
            raise UserError(
                f"run folder {path} cannot be written ({error.strerror}); {run.newest_checkpoint}"
            ) from error
        except RuntimeError as error:
            if distributed.world_size == 1 or not is_lost_peer(error):
                raise
            raise StoppedError(
                "another process of this run has ended; its message says why, and the same command"
                " continues"
            ) from error


@contextmanager
def prepared(
    context: TrainContext,
    state: TrainState,
    options: RunOptions,
    stop_request: StopRequest,
    on_event: OnEvent | None,
) -> Iterator[Training]:
    """Puts a model on its device with all that its training needs, and restores the checkpoint.

    What was changed in the model for its training alone is undone afterwards.
    """
    model, recipe, run = context.model, context.recipe, context.run
    device, distributed = context.device, context.distributed
    classes = context.dataset.num_classes
    model.to(device).to(memory_format=context.compute.memory_format)
    ema = Ema(model, recipe.ema_decay) if recipe.ema_decay else None
    with ExitStack() as stack:
        stack.enter_context(regularised(model, classes, recipe.drop_rate, recipe.drop_path))
        if recipe.sync_bn and distributed.world_size > 1:
            stack.enter_context(synchronised_norms(model, device))
        train_step = TrainStep(
            model,
            recipe,
            seed=context.seed,
            num_classes=classes,
            compute=context.compute,
            device=device,
            distributed=distributed,
        )
        checkpoints = CheckpointManager(
            run,
            options,
            distributed,
            state,
            context.steps_per_epoch,
            model=model,
            average=None if ema is None else ema.module,
            train_step=train_step,
        )
        if distributed.is_main:
            about = environment(context.compute, device)
            run.write_environment({**about, "processes": distributed.world_size})
        warnings = checkpoints.restore()
        run.records = distributed.run_on_main(lambda: run.keep_records(state.epochs))
        logger = None
        if options.tensorboard and distributed.is_main:
            logger = TensorBoardLogger(run.path / TENSORBOARD, state.step)
            stack.callback(logger.close)

        def emit(event: Event) -> None:
            if logger is not None:
                logger.log(event)
            if on_event is None or not distributed.is_main:
                return
            try:
                on_event(event)
            except KeyboardInterrupt:  # All processes must learn of it and stop at the same step.
                stop_request.signalled = True

        if warnings is not None:
            emit(
                {
                    "event": "resumed",
                    "epoch": state.epochs,
                    "step": state.step,
                    "steps": context.steps,
                    "warnings": warnings,
                }
            )
        yield Training(context, state, train_step, ema, checkpoints, stop_request, emit)


def describe(
    dataset: Dataset, recipe: Recipe, seed: int, config: Mapping[str, Any], compute: Compute
) -> dict[str, Any]:
    """Returns the content of `config.json`."""
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
