"""Checkpoints of a run: when, what is in them, and back."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
from torch import nn

from cpsam.checkpoint import (
    Checkpoint,
    checkpoint_steps,
    load_checkpoint,
    save_weights,
    storable,
    write_checkpoint,
)
from cpsam.config.run_options import RunOptions
from cpsam.errors import DataError, UserError
from cpsam.train.distributed import Distributed
from cpsam.train.run_folder import RunFolder
from cpsam.train.sealed_records import is_number
from cpsam.train.state import AVERAGE, MODEL, pack, unpack
from cpsam.train.step import Update
from cpsam.train.writer import Writer


@dataclass
class Position:
    """Where a run is.

    Args:
        step: Optimizer steps made.
        epochs: Epochs that are finished, measured included.
        loss_sum: Sum of the losses of the images of the epoch so far.
        seconds: Spent on it so far.
    """

    step: int = 0
    epochs: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0


class Keeper:
    """Saves the state of a run to its folder and loads it from there. The main process writes and
    reads for all.

    Args:
        run: The folder.
        options: How often, and how many are kept.
        distributed: The processes of the run.
        steps_per_epoch: Steps an epoch.
    """

    def __init__(
        self, run: RunFolder, options: RunOptions, distributed: Distributed, steps_per_epoch: int
    ) -> None:
        self.run, self.options, self.distributed, self.steps_per_epoch = (
            run,
            options,
            distributed,
            steps_per_epoch,
        )
        self.writer = Writer()
        self.last: tuple[int, int] | None = None  # step and epochs of what was saved last
        self.time = time.monotonic()

    def due(self, step: int) -> bool:
        steps, minutes = self.options.checkpoint_steps, self.options.checkpoint_minutes
        by_time = bool(minutes) and time.monotonic() - self.time >= 60 * minutes
        return self.distributed.is_main and (by_time or (bool(steps) and step % steps == 0))

    def save(
        self,
        position: Position,
        model: nn.Module,
        average: nn.Module | None,
        update: Update,
        best: bool = False,
    ) -> None:
        """Copy everything now, write it meanwhile.

        Args:
            position: Where the run is.
            model: In training.
            average: Of its weights, if there is one.
            update: With its optimizer and scaler.
            best: Whether to write the weights to `best.safetensors` as well.

        Raises:
            OSError: If what was to be written before this could not be.
        """
        if not self.distributed.is_main or self.last == (position.step, position.epochs):
            return
        self.last, self.time = (position.step, position.epochs), time.monotonic()
        tensors, meta = pack(model, average, update.optimizer)
        scaler = None if update.scaler is None else update.scaler.state_dict()
        meta |= {"position": asdict(position), "scaler": scaler, "identity": self.run.identity}
        copies, step = storable(tensors), position.step  # the run goes on while this is written
        record = self.run.records[-1] if best else {}

        def write() -> None:
            self.run.check_lock()
            if best:
                about = {name: meta[name] for name in ("attention", "identity")} | {
                    name: record[name] for name in ("epoch", "top1")
                }
                save_weights(
                    self.run.best, copies.part(MODEL if average is None else AVERAGE), about
                )
            write_checkpoint(self.run.checkpoints, step, copies, meta, self.options.keep)

        self.writer.start(write)

    def load(
        self, model: nn.Module, average: nn.Module | None, update: Update
    ) -> tuple[Position, list[str]] | None:
        """Put the newest whole checkpoint into the model and all that belongs to it.

        Returns:
            Where the run is, and what was wrong with newer checkpoints; None if there is no
            checkpoint.

        Raises:
            DataError: If there are checkpoints and none is whole.
            UserError: If it is of another model.
        """
        checkpoint = self.read()
        if checkpoint is None:
            return None
        try:
            unpack(checkpoint.tensors, checkpoint.meta, model, average, update.optimizer)
            if update.scaler is not None:
                update.scaler.load_state_dict(checkpoint.meta["scaler"])
            position = Position(**checkpoint.meta["position"])
            epoch, steps = position.epochs, self.steps_per_epoch
            whole = type(position.step) is type(epoch) is int and is_number(position.loss_sum)
            timed = is_number(position.seconds) and position.seconds >= 0
            fits = (
                whole
                and timed
                and position.step == checkpoint.step
                and epoch * steps <= position.step <= (epoch + 1) * steps
            )
        except UserError:
            raise
        except (
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            AttributeError,
            RuntimeError,
            OverflowError,
        ) as error:
            raise DataError(
                f"the checkpoint of step {checkpoint.step} is not what this version writes:"
                f" {error!r}"
            ) from error
        if not fits:
            raise DataError(
                f"the checkpoint of step {checkpoint.step} does not fit this run: it claims"
                f" {position}"
            )
        self.last = (position.step, position.epochs)
        return position, checkpoint.warnings

    def read(self) -> Checkpoint | None:
        """What process 0 reads, in every process: the others may not see its disk."""
        held: list[Checkpoint | None] = []

        def first() -> dict[str, Any] | None:
            held.append(load_checkpoint(self.run.checkpoints, self.run.identity))
            found = held[0]
            return (
                None
                if found is None
                else {"step": found.step, "meta": found.meta, "warnings": found.warnings}
            )

        about = self.distributed.run_on_main(first)
        if self.distributed.world_size == 1 or about is None:
            return held[0] if held else None
        copies = storable(held[0].tensors) if held and held[0] else None
        stored = safetensors.torch.load(
            self.distributed.broadcast_bytes(
                safetensors.torch.save(copies.stored) if copies else None
            )
        )
        shared: dict[str, str] = self.distributed.run_on_main(
            lambda: copies.shared if copies else {}
        )
        return Checkpoint(
            tensors=stored | {name: stored[original] for name, original in shared.items()}, **about
        )

    @property
    def newest(self) -> str:
        steps = checkpoint_steps(self.run.checkpoints)
        return (
            f"the last checkpoint is of step {steps[-1]}" if steps else "there is no checkpoint yet"
        )

    def finish(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: If it could not be written.
        """
        self.writer.join()
