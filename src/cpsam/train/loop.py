"""The training loop: epochs of steps, an evaluation after each, and the summary at the end."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.data.batches import Batch, train_batches
from cpsam.evaluate import evaluate
from cpsam.insert import attention_config
from cpsam.measure import count_parameters
from cpsam.train.checkpointing import CheckpointManager, TrainState
from cpsam.train.context import TrainContext
from cpsam.train.divergence import DivergenceReporter, SpikeDetector
from cpsam.train.ema import Ema
from cpsam.train.events import EpochEvent, EpochRecord, OnEvent, StartEvent
from cpsam.train.step import TrainStep
from cpsam.train.stop import Stop, StopRequest
from cpsam.train.throughput import ThroughputMeter
from cpsam.weights_file import save_weights

LEAST_SECONDS = 1e-9  # A clock may stand still.


class Training:
    """Trains one run from where its state is to its end.

    Args:
        context: What does not change during the run.
        state: Where the run is; changed in place.
        train_step: Makes a step.
        ema: The moving average of the weights, if the recipe has one.
        checkpoints: Saves the run.
        stop_request: Knows whether this process was asked to stop.
        emit: Receives every event.
    """

    def __init__(
        self,
        context: TrainContext,
        state: TrainState,
        train_step: TrainStep,
        ema: Ema | None,
        checkpoints: CheckpointManager,
        stop_request: StopRequest,
        emit: OnEvent,
    ) -> None:
        self.context = context
        self.state = state
        self.train_step = train_step
        self.ema = ema
        self.checkpoints = checkpoints
        self.stop_request = stop_request
        self.emit = emit
        self.eval_model: nn.Module = context.model if ema is None else ema.module
        self.divergence = DivergenceReporter(context, self.eval_model, checkpoints)
        self.spikes = SpikeDetector()
        self.throughput = ThroughputMeter(context.steps - state.step)

    def run(self) -> dict[str, Any]:
        """Trains, and returns the summary.

        Raises:
            Stop: If a process was asked to stop; the step that was reached is saved.
            DivergedError: If a loss, a gradient or a weight is not finite.
            DataError: If an image cannot be read, or an initial weight is not finite.
        """
        self.emit(self.start_event())
        self.divergence.check_start()
        try:
            while self.state.epochs < self.context.recipe.epochs:
                self.check_stop()
                self.train_epoch()
                self.finish_epoch()
        except Stop:
            self.checkpoints.save()
            raise
        finally:
            self.checkpoints.writer.wait()
        return self.context.distributed.run_on_main(self.write_summary)

    def start_event(self) -> StartEvent:
        context, data, compute = self.context, self.context.dataset, self.context.compute
        return {
            "event": "start",
            "data": data.name,
            "train_images": len(data.train),
            "test_images": len(data.evaluation),
            "measured_on": data.evaluation_name,
            "classes": data.num_classes,
            "parameters": count_parameters(context.model),
            "places": [entry["at"] for entry in attention_config(context.model, complete=False)],
            "device": compute.device,
            "precision": compute.precision,
            "channels_last": compute.channels_last,
            "threads": compute.threads,
            "processes": context.distributed.world_size,
            "epochs": context.recipe.epochs,
            "steps": context.steps,
        }

    def train_epoch(self) -> None:
        """Makes the steps of the current epoch that are still to be made."""
        context, state = self.context, self.state
        started, before = time.perf_counter(), state.seconds
        context.model.train()
        with closing(self.batches()) as batches:  # pyrefly: ignore
            for x, y in batches:
                images = context.batch_sizes[state.step % context.steps_per_epoch]
                loss, lr, stop = self.make_step(x, y, images)
                state.seconds = before + time.perf_counter() - started
                self.report_step(loss, lr, images)
                if stop:
                    raise Stop
                if self.checkpoints.is_due():
                    self.checkpoints.save()

    def batches(self) -> Iterator[Batch]:
        """Returns this process's part of the batches that the current epoch still has."""
        context, epoch = self.context, self.state.epochs
        return train_batches(
            context.dataset,
            batch_size=context.recipe.batch_size,
            seed=context.seed,
            epoch=epoch,
            start=self.state.step - epoch * context.steps_per_epoch,
            rank=context.distributed.rank,
            world_size=context.distributed.world_size,
            device=context.device,
            channels_last=context.compute.channels_last,
        )

    def make_step(self, x: Tensor, y: Tensor, images: int) -> tuple[float, float, bool]:
        """Makes one optimizer step.

        Returns:
            The mean loss before it, its learning rate, and whether to stop after it.

        Raises:
            DivergedError: If the loss or the gradient is not finite; the step is not applied.
        """
        lr = self.context.lr(self.state.step)
        gradients = self.train_step.compute_gradients(x, y, self.state.step, images)
        loss_sum, diverged, stop = self.reduce(
            gradients.loss, not gradients.is_finite, self.stop_requested
        )
        loss = loss_sum / images
        if diverged or not self.train_step.apply(lr):
            raise self.divergence.step_error(gradients, loss, lr, self.state.step)
        self.state.step += 1
        self.state.loss_sum += loss_sum
        if self.ema is not None:
            self.ema.update(self.state.step)
        return loss, lr, stop

    def report_step(self, loss: float, lr: float, images: int) -> None:
        state, recipe = self.state, self.context.recipe
        if (throughput := self.throughput.update(images)) is not None:
            self.emit(
                {
                    "event": "step",
                    "epoch": state.epochs + 1,
                    "epochs": recipe.epochs,
                    "step": state.step,
                    "steps": self.context.steps,
                    "lr": lr,
                    "loss": loss,
                    "images_per_s": throughput[0],
                    "seconds_left": throughput[1],
                }
            )
        if (median := self.spikes.update(loss)) is not None:
            self.emit({"event": "spike", "step": state.step, "loss": loss, "median": median})

    @property
    def stop_requested(self) -> bool:
        """Whether this process was asked to stop, or cannot write its checkpoints."""
        return self.stop_request.requested or self.checkpoints.writer.failed

    def check_stop(self) -> None:
        """Stops if any process was asked to."""
        if self.reduce(0.0, False, self.stop_requested)[2]:
            raise Stop

    def reduce(self, loss: float, diverged: bool, stop: bool) -> tuple[float, bool, bool]:
        """Returns the sum of the losses, and whether any process diverged or is asked to stop.

        It is one message per step.
        """
        distributed = self.context.distributed
        if distributed.world_size == 1:
            return loss, diverged, stop
        values = torch.tensor(
            [loss, diverged, stop], dtype=torch.float64, device=self.context.device
        )
        total, diverged_anywhere, stop_anywhere = distributed.all_reduce(values).tolist()
        return total, diverged_anywhere > 0, stop_anywhere > 0

    def finish_epoch(self) -> None:
        """Evaluates, writes the metrics, then saves a checkpoint.

        So wherever there is a checkpoint, the metrics of its epochs are there too.
        """
        context, state = self.context, self.state
        started, epoch = time.perf_counter(), state.epochs + 1
        metrics = self.evaluate(epoch)
        self.divergence.check_epoch(metrics["loss"], epoch, state.step)
        record: EpochRecord = {
            "epoch": epoch,
            "step": state.step,
            "lr": context.lr(state.step - 1),
            "train_loss": state.loss_sum / context.images_per_epoch,
            "top1": metrics["top1"],
            "top5": metrics["top5"],
            "loss": metrics["loss"],
            "n": int(metrics["n"]),
            "timing": {
                "train_seconds": state.seconds,
                "evaluation_seconds": time.perf_counter() - started,
                "images_per_s": context.images_per_epoch / max(state.seconds, LEAST_SECONDS),
            },
        }
        best = all(record["top1"] > earlier["top1"] for earlier in context.run.records)
        if context.distributed.is_main:
            context.run.add_record(record)
        else:
            context.run.records.append(record)
        state.finish_epoch()
        self.checkpoints.save(best)
        event: EpochEvent = {"event": "epoch", "epochs": context.recipe.epochs, **record}
        self.emit(event)

    def evaluate(self, epoch: int) -> dict[str, float | int]:
        context = self.context

        def on_batch(done: int, of: int) -> None:
            self.check_stop()
            epochs = context.recipe.epochs
            self.emit(
                {"event": "evaluation", "epoch": epoch, "epochs": epochs, "images": done, "of": of}
            )

        context.distributed.broadcast_tensors(self.eval_model.buffers())
        return evaluate(
            self.eval_model,
            context.dataset,
            batch_size=context.recipe.batch_size,
            precision=context.compute.precision,
            device=context.device,
            channels_last=context.compute.channels_last,
            rank=context.distributed.rank,
            world_size=context.distributed.world_size,
            all_reduce=context.distributed.all_reduce,
            on_batch=on_batch,
        )

    def write_summary(self) -> dict[str, Any]:
        """Writes the weights, then the summary, and returns it."""
        run, epochs = self.context.run, self.context.recipe.epochs
        run.check_lock()
        blocks = attention_config(self.eval_model, complete=False)
        about = {"attention": blocks, "identity": run.identity}
        save_weights(run.weights, self.eval_model.state_dict(), about)
        timing = {
            name: sum(record["timing"][name] for record in run.records)
            for name in ("train_seconds", "evaluation_seconds")
        }
        images, seconds = self.context.images_per_epoch * epochs, timing["train_seconds"]
        timing["images_per_s"] = images / max(seconds, LEAST_SECONDS)
        last = run.records[-1]
        metrics = {name: last[name] for name in ("train_loss", "top1", "top5", "loss", "n")}
        best = max(run.records, key=lambda record: record["top1"])
        metrics["best"] = {"epoch": best["epoch"], "top1": best["top1"]}
        steps = self.context.steps
        return run.finish({"epochs": epochs, "steps": steps, **metrics, "timing": timing})
