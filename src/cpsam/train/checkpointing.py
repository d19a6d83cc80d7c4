"""Checkpoints of a run: when to save one, what is in it, and how a run continues from it."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cpsam.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cpsam.config.run_options import RunOptions
from cpsam.errors import DataError, UserError
from cpsam.insert import attention_config
from cpsam.train.distributed import Distributed
from cpsam.train.metrics import is_number
from cpsam.train.run_folder import RunFolder
from cpsam.train.step import TrainStep
from cpsam.weights_file import Storable, save_weights, storable

MODEL, AVERAGE, OPTIMIZER = "model/", "average/", "optimizer/"
# What restoring from a forged manifest can raise.
NOT_OURS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


@dataclass
class TrainState:
    """Where a run is. Checkpoints hold it as "position".

    Args:
        step: Optimizer steps made.
        epochs: Epochs that are trained and evaluated.
        loss_sum: Sum of the losses of the images in the current epoch so far.
        seconds: Time spent in the current epoch so far.
    """

    step: int = 0
    epochs: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0

    def finish_epoch(self) -> None:
        self.epochs, self.loss_sum, self.seconds = self.epochs + 1, 0.0, 0.0

    def fits(self, step: int, steps_per_epoch: int) -> bool:
        """Returns whether the state is of this step, and its numbers are possible."""
        return (
            type(self.step) is type(self.epochs) is int
            and is_number(self.loss_sum)
            and is_number(self.seconds)
            and self.seconds >= 0
            and self.step == step
            and self.epochs * steps_per_epoch <= step <= (self.epochs + 1) * steps_per_epoch
        )


class CheckpointManager:
    """Saves a run into its folder and restores it. The main process writes and reads for all.

    Args:
        run: The run folder.
        options: How often to save, and how many checkpoints to keep.
        distributed: The processes of the run.
        state: Where the run is; restoring changes it in place.
        steps_per_epoch: Optimizer steps per epoch.
        model: The network in training.
        average: The network of the averaged weights, if there is one.
        train_step: Its optimizer and its scaler.
    """

    def __init__(
        self,
        run: RunFolder,
        options: RunOptions,
        distributed: Distributed,
        state: TrainState,
        steps_per_epoch: int,
        *,
        model: nn.Module,
        average: nn.Module | None,
        train_step: TrainStep,
    ) -> None:
        self.run = run
        self.options = options
        self.distributed = distributed
        self.state = state
        self.steps_per_epoch = steps_per_epoch
        self.model = model
        self.average = average
        self.optimizer = train_step.optimizer
        self.scaler = train_step.scaler
        self.writer = BackgroundWriter()
        self.saved: tuple[int, int] | None = None  # step and epochs of the last checkpoint
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Returns whether a checkpoint is to be saved after this step, by steps or by time."""
        steps, seconds = self.options.checkpoint_steps, 60 * self.options.checkpoint_minutes
        by_steps = bool(steps) and self.state.step % steps == 0
        by_time = bool(seconds) and time.monotonic() - self.saved_at >= seconds
        return self.distributed.is_main and (by_steps or by_time)

    def save(self, best: bool = False) -> None:
        """Copies everything now, and writes it while the run goes on.

        Args:
            best: Whether to write the weights to `best.safetensors` too.

        Raises:
            OSError: If the checkpoint before this one could not be written.
        """
        state = self.state
        if not self.distributed.is_main or self.saved == (state.step, state.epochs):
            return
        self.saved, self.saved_at = (state.step, state.epochs), time.monotonic()
        tensors, meta = pack(self.model, self.average, self.optimizer)
        scaler = None if self.scaler is None else self.scaler.state_dict()
        meta |= {"position": asdict(state), "scaler": scaler, "identity": self.run.identity}
        copies, step = storable(tensors), state.step
        record = self.run.records[-1] if best else {}

        def write() -> None:
            self.run.check_lock()
            if best:
                about = {name: meta[name] for name in ("attention", "identity")}
                about |= {name: record[name] for name in ("epoch", "top1")}
                prefix = MODEL if self.average is None else AVERAGE
                save_weights(self.run.best, copies.part(prefix), about)
            save_checkpoint(self.run.checkpoints, step, copies, meta, self.options.keep)

        self.writer.submit(write)

    def restore(self) -> list[str] | None:
        """Loads the newest whole checkpoint into all that the run saves.

        Returns:
            What was wrong with newer checkpoints, one line each; None if there is no checkpoint.

        Raises:
            DataError: If there are checkpoints and none is whole.
            UserError: If the checkpoint is of another model.
        """
        checkpoint = self.read()
        if checkpoint is None:
            return None
        what = f"the checkpoint of step {checkpoint.step}"
        try:
            unpack(checkpoint.tensors, checkpoint.meta, self.model, self.average, self.optimizer)
            if self.scaler is not None:
                self.scaler.load_state_dict(checkpoint.meta["scaler"])
            state = TrainState(**checkpoint.meta["position"])
            fits = state.fits(checkpoint.step, self.steps_per_epoch)
        except UserError:
            raise
        except NOT_OURS as error:
            raise DataError(f"{what} is not what this version writes: {error!r}") from error
        if not fits:
            raise DataError(f"{what} does not fit this run: it claims {state}")
        vars(self.state).update(vars(state))
        self.saved = (state.step, state.epochs)
        return checkpoint.warnings

    def read(self) -> Checkpoint | None:
        """Returns, in every process, the checkpoint that the main process reads.

        The other processes may not see its disk.
        """
        local: list[Checkpoint] = []

        def load() -> dict[str, Any] | None:
            found = load_checkpoint(self.run.checkpoints, self.run.identity)
            if found is None:
                return None
            local.append(found)
            return {"step": found.step, "meta": found.meta, "warnings": found.warnings}

        header = self.distributed.run_on_main(load)
        if header is None:
            return None
        if self.distributed.world_size == 1:
            return local[0]
        copies = storable(local[0].tensors) if local else Storable({}, {})
        data = self.distributed.broadcast_bytes(safetensors.torch.save(copies.stored))
        shared: dict[str, str] = self.distributed.run_on_main(lambda: copies.shared)
        everything = Storable(safetensors.torch.load(data), shared).part("")
        return Checkpoint(tensors=everything, **header)


class BackgroundWriter:
    """Runs one piece of work at a time in a thread of its own, beside the computation."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "writer")
        self.work: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Waits for the work before, then starts this.

        Raises:
            OSError: If the work before failed.
        """
        self.wait()
        self.work = self.pool.submit(work)

    @property
    def failed(self) -> bool:
        return self.work is not None and self.work.done() and self.work.exception() is not None

    def wait(self) -> None:
        """Waits for the work that was started.

        Raises:
            OSError: If it failed. A failure is raised once.
        """
        work, self.work = self.work, None
        if work is not None:
            work.result()


def pack(
    model: nn.Module, average: nn.Module | None, optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors of a run by name, and plain data.

    The plain data are the numbers of the optimizer, and what is inserted in the model.

    Hyperparameters are left out: they are functions of the recipe and the step.
    """
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {AVERAGE + name: tensor for name, tensor in average.state_dict().items()}
    numbers: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}/{key}"] = value
            else:
                numbers[f"{index}/{key}"] = value
    blocks = attention_config(model, complete=False)
    return tensors, {"optimizer": numbers, "attention": blocks}


def unpack(
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    model: nn.Module,
    average: nn.Module | None,
    optimizer: Optimizer,
) -> None:
    """Copies what :func:`pack` returned into a model, its average and an optimizer.

    Every tensor keeps its device and memory format.

    Raises:
        UserError: If the model is not the one that was saved.
    """
    stored = Storable(dict(tensors), {})
    copy_into(model, stored.part(MODEL))
    if average is not None:
        copy_into(average, stored.part(AVERAGE))
    groups = optimizer.state_dict()["param_groups"]
    indices = [index for group in groups for index in group["params"]]
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = dict(zip(indices, own, strict=True))
    state: dict[int, dict[str, Any]] = {}
    for name, value in (stored.part(OPTIMIZER) | meta["optimizer"]).items():
        index, key = name.split("/")
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    if differing := sorted(own.keys() ^ tensors.keys()):
        where = "the checkpoint lacks" if differing[0] in own else "the model lacks"
        raise UserError(
            f"the checkpoint is of another model: {where} {differing[0]!r}, the first of"
            f" {len(differing)} such names"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            saved = tensors[name]
            if tensor.shape != saved.shape:
                shapes = f"shape {tuple(saved.shape)} there and {tuple(tensor.shape)} here"
                raise UserError(f"the checkpoint is of another model: {name!r} has {shapes}")
            tensor.copy_(saved)
