"""Epochs of steps, each a pure function of the weights, the recipe, the seed and the step
number.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpsam.checkpoint import save_weights
from cpsam.config.recipe import Recipe
from cpsam.config.run_options import RunOptions
from cpsam.data.batches import rank_slice, train_batches, train_indices
from cpsam.data.dataset import Dataset
from cpsam.errors import DataError, DivergedError
from cpsam.evaluate import evaluate
from cpsam.insert import attention_config
from cpsam.measure import count_parameters
from cpsam.train.checkpointing import Keeper, Position
from cpsam.train.clock import Clock
from cpsam.train.compute import Compute
from cpsam.train.distributed import Distributed
from cpsam.train.ema import Ema
from cpsam.train.environment import environment
from cpsam.train.health import Spikes, broken_tensors, listed
from cpsam.train.regularise import regularised
from cpsam.train.run_folder import RunFolder
from cpsam.train.schedule import learning_rate
from cpsam.train.step import Gradients, Update
from cpsam.train.stop import Stop, StopRequest
from cpsam.train.sync_norm import synchronous
from cpsam.train.tensorboard import Board

Event = dict[str, Any]
LEAST_SECONDS = 1e-9  # A clock may stand still.


@dataclass
class Training:
    """One call of :func:`train`: what it works with, and where it is."""

    model: nn.Module
    dataset: Dataset
    recipe: Recipe
    seed: int
    run: RunFolder
    compute: Compute
    device: torch.device
    on_event: Callable[[Event], None]
    options: RunOptions
    distributed: Distributed
    board: Board | None

    def __post_init__(self) -> None:
        if not self.recipe.augment:
            self.dataset = self.dataset.unaugmented()
        batches = train_indices(
            len(self.dataset.train), batch_size=self.recipe.batch_size, seed=self.seed, epoch=0
        )
        self.batch_sizes = [len(batch) for batch in batches]  # those of every epoch
        self.steps_per_epoch, self.images_per_epoch = len(batches), sum(self.batch_sizes)
        self.steps = self.recipe.epochs * self.steps_per_epoch
        self.request = StopRequest(self.options.max_minutes, echoes=self.distributed.launched)
        self.keeper = Keeper(self.run, self.options, self.distributed, self.steps_per_epoch)
        self.spikes = Spikes()
        self.position = Position()

    @property
    def step(self) -> int:
        return self.position.step

    @property
    def shipped(self) -> nn.Module:
        """The network that is measured and kept."""
        return self.model if self.ema is None else self.ema.module

    def run_all(self) -> dict[str, Any]:
        recipe, distributed = self.recipe, self.distributed
        self.model.to(self.device).to(memory_format=self.compute.memory_format)
        self.ema = Ema(self.model, recipe.ema_decay) if recipe.ema_decay else None
        classes = self.dataset.num_classes
        with ExitStack() as stack:
            stack.enter_context(
                regularised(self.model, classes, recipe.drop_rate, recipe.drop_path)
            )
            if recipe.sync_bn and distributed.world_size > 1:
                stack.enter_context(synchronous(self.model, self.device))
            self.update = Update(
                self.model,
                recipe,
                seed=self.seed,
                num_classes=classes,
                compute=self.compute,
                device=self.device,
                distributed=distributed,
            )
            if distributed.is_main:
                self.run.write_environment(
                    {**environment(self.compute, self.device), "processes": distributed.world_size}
                )
            self.resume()
            self.tell(self.opening())
            if wrong := broken_tensors(self.model):
                raise self.distributed.mark_as_shared(
                    DataError(
                        f"the weights of the network are not finite before the first step: {wrong}"
                    )
                )
            self.update.wrap()
            if self.board is not None:
                self.board.open(self.step)
                stack.callback(self.board.close)
            self.clock = Clock(self.steps - self.step)
            try:
                while self.position.epochs < recipe.epochs:
                    self.look()
                    self.train_epoch()
                    self.finish_epoch()
            except Stop:
                self.save()
                raise
            finally:
                self.keeper.finish()
        return self.summarise()

    def opening(self) -> Event:
        """Returns the event that says what the run does."""
        data = self.dataset
        sizes = {
            "train_images": len(data.train),
            "test_images": len(data.evaluation),
            "measured_on": data.evaluation_name,
            "classes": data.num_classes,
        }
        places = [entry["at"] for entry in attention_config(self.model)]
        model = {"parameters": count_parameters(self.model), "places": places}
        computes = {**asdict(self.compute), "processes": self.distributed.world_size}
        return {
            "event": "start",
            "data": data.name,
            **sizes,
            **model,
            **computes,
            "epochs": self.recipe.epochs,
            "steps": self.steps,
        }

    def resume(self) -> None:
        average = None if self.ema is None else self.ema.module
        found = self.keeper.load(self.model, average, self.update)
        self.position, warnings = found if found is not None else (self.position, [])
        self.run.records = self.distributed.run_on_main(
            lambda: self.run.keep_records(self.position.epochs)
        )
        if found is not None:
            where = {"epoch": self.position.epochs, "step": self.step, "steps": self.steps}
            self.tell({"event": "resumed", **where, "warnings": warnings})

    def train_epoch(self) -> None:
        """Make the steps of an epoch that are still to be made."""
        position, epoch = self.position, self.position.epochs
        started, before = time.perf_counter(), self.position.seconds
        self.model.train()
        batches = train_batches(
            self.dataset,
            batch_size=self.recipe.batch_size,
            seed=self.seed,
            epoch=epoch,
            start=self.step - epoch * self.steps_per_epoch,
            rank=self.distributed.rank,
            world_size=self.distributed.world_size,
            device=self.device,
            channels_last=self.compute.channels_last,
        )
        with closing(batches):  # pyrefly: ignore
            for x, y in batches:
                images = self.batch_sizes[self.step % self.steps_per_epoch]
                loss, lr, leave = self.make_step(x, y, images)
                position.seconds = before + time.perf_counter() - started
                if (pace := self.clock.tick(images)) is not None:
                    where = {
                        "epoch": epoch + 1,
                        "epochs": self.recipe.epochs,
                        "step": self.step,
                        "steps": self.steps,
                    }
                    self.tell({"event": "step", **where, "lr": lr, "loss": loss, **pace})
                if (usual := self.spikes.usual(loss)) is not None:
                    self.tell({"event": "spike", "step": self.step, "loss": loss, "usual": usual})
                if leave:
                    raise Stop
                if self.keeper.due(self.step):
                    self.save()

    def make_step(self, x: Tensor, y: Tensor, images: int) -> tuple[float, float, bool]:
        """One optimizer step; returns the loss before it, its learning rate, and whether to leave
        after it.
        """
        lr = learning_rate(self.recipe, self.step, self.steps_per_epoch)
        gradients = self.update.compute(x, y, self.step, images)
        loss_sum, broken, leave = self.over_all(gradients.loss, not gradients.finite, self.asked)
        if broken:
            raise self.diverged(gradients, loss_sum / images, lr)
        if not self.update.move(lr):
            raise self.diverged(gradients, loss_sum / images, lr)
        self.position.step += 1
        self.position.loss_sum += loss_sum
        if self.ema is not None:
            self.ema.update(self.step)
        return loss_sum / images, lr, leave

    @property
    def asked(self) -> bool:
        return self.request.requested or self.keeper.writer.failed

    def over_all(self, loss: float, broken: bool, asked: bool) -> tuple[float, bool, bool]:
        """The sum of the losses over all processes, and whether anything is wrong or asked for in
        any: one message a step.
        """
        if self.distributed.world_size == 1:
            return loss, broken, asked
        values = torch.tensor([loss, broken, asked], dtype=torch.float64, device=self.device)
        loss, anywhere_broken, anywhere_asked = self.distributed.all_reduce(values).tolist()
        return loss, anywhere_broken > 0, anywhere_asked > 0

    def look(self) -> None:
        """Leave if any process was asked to."""
        if self.over_all(0.0, False, self.asked)[2]:
            raise Stop

    def tell(self, event: Event) -> None:
        if self.board is not None:
            self.board(event)
        try:
            self.on_event(event)
        except KeyboardInterrupt:  # all processes must hear of it, and leave at the same step
            self.request.signalled = True

    def save(self, best: bool = False) -> None:
        self.keeper.save(
            self.position,
            self.model,
            None if self.ema is None else self.ema.module,
            self.update,
            best,
        )

    def diverged(self, gradients: Gradients, loss: float, lr: float) -> DivergedError:
        """Says what is not finite, where, and on which images of the train split."""
        self.keeper.finish()
        epoch = self.step // self.steps_per_epoch
        batches = train_indices(
            len(self.dataset.train), batch_size=self.recipe.batch_size, seed=self.seed, epoch=epoch
        )
        batch = batches[self.step % self.steps_per_epoch]
        bad = torch.zeros(len(self.dataset.train), dtype=torch.float64, device=self.device)
        part = rank_slice(batch, self.distributed.rank, self.distributed.world_size)
        bad[part[gradients.bad]] = 1
        found = self.distributed.all_reduce(bad).nonzero().flatten().tolist()
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif gradients.norm is not None:
            what = f"the gradient norm is {gradients.norm}"
        else:
            what = f"the gradients overflow at every scale, with a loss of {loss:.4g}"
        where = (
            f"step {self.step + 1} of {self.steps}, in epoch {epoch + 1} of {self.recipe.epochs},"
            f" with lr {lr:.4g}"
        )
        wrong = broken_tensors(self.model, statistics=False)  # A training step does not read them.
        why = (
            f"because weights are not finite: {wrong}"
            if wrong
            else f"on train images {listed(found or batch.tolist())}"
        )
        return self.distributed.mark_as_shared(
            DivergedError(
                f"{what} at {where}, {why}; {self.keeper.newest} ({self.run.checkpoints})"
            )
        )

    def check_end(self, loss: float, epoch: int) -> None:
        """Checks what an epoch ends with, before it is kept: no step comes after the last one to
        find out.

        Raises:
            DivergedError: If the loss of the evaluation or, after the last epoch, a weight or its
                average is not finite.
        """
        wrong = [] if math.isfinite(loss) else [f"the evaluation loss is {loss}"]
        if epoch == self.recipe.epochs:
            for name, module in {
                "the weights": self.model,
                "the averaged weights": self.shipped,
            }.items():
                if (found := broken_tensors(module)) and not (
                    name != "the weights" and module is self.model
                ):
                    wrong.append(f"{name} are not finite: {found}")
        if wrong:
            self.keeper.finish()
            where = (
                f"at the end of epoch {epoch} of {self.recipe.epochs}, after step {self.step} of"
                f" {self.steps}"
            )
            raise self.distributed.mark_as_shared(
                DivergedError(
                    f"{'; '.join(wrong)}, {where}; {self.keeper.newest} ({self.run.checkpoints})"
                )
            )

    def finish_epoch(self) -> None:
        """Measure, then write the metrics, then the checkpoint: with a checkpoint, its metrics are
        always there.
        """
        started, position, epoch = time.perf_counter(), self.position, self.position.epochs + 1

        def on_batch(done: int, of: int) -> None:
            self.look()
            self.tell(
                {
                    "event": "evaluation",
                    "epoch": epoch,
                    "epochs": self.recipe.epochs,
                    "images": done,
                    "of": of,
                }
            )

        self.distributed.broadcast_tensors(self.shipped.buffers())
        measured = evaluate(
            self.shipped,
            self.dataset,
            batch_size=self.recipe.batch_size,
            precision=self.compute.precision,
            device=self.device,
            channels_last=self.compute.channels_last,
            rank=self.distributed.rank,
            world_size=self.distributed.world_size,
            all_reduce=self.distributed.all_reduce,
            on_batch=on_batch,
        )
        self.check_end(measured["loss"], epoch)
        lr = learning_rate(self.recipe, self.step - 1, self.steps_per_epoch)
        timing = {
            "train_seconds": position.seconds,
            "evaluation_seconds": time.perf_counter() - started,
            "images_per_s": self.images_per_epoch / max(position.seconds, LEAST_SECONDS),
        }
        train_loss = position.loss_sum / self.images_per_epoch
        record = {
            "epoch": epoch,
            "step": self.step,
            "lr": lr,
            "train_loss": train_loss,
            **measured,
            "timing": timing,
        }
        best = all(measured["top1"] > earlier["top1"] for earlier in self.run.records)
        if self.distributed.is_main:
            self.run.add_record(record)
        else:
            self.run.records.append(record)
        self.position = Position(self.step, epoch)
        self.save(best)
        self.tell({"event": "epoch", "epochs": self.recipe.epochs, **record})

    def summarise(self) -> dict[str, Any]:
        return self.distributed.run_on_main(self.write_summary)

    def write_summary(self) -> dict[str, Any]:
        records = self.run.records
        timings = [record["timing"] for record in records]
        self.run.check_lock()
        about = {"attention": attention_config(self.shipped), "identity": self.run.identity}
        save_weights(self.run.weights, self.shipped.state_dict(), about)
        timing = {
            name: sum(timing[name] for timing in timings)
            for name in ("train_seconds", "evaluation_seconds")
        }
        timing["images_per_s"] = (
            self.images_per_epoch * self.recipe.epochs / max(timing["train_seconds"], LEAST_SECONDS)
        )
        metrics = {name: records[-1][name] for name in ("train_loss", "top1", "top5", "loss", "n")}
        best = max(records, key=lambda record: record["top1"])
        metrics["best"] = {"epoch": best["epoch"], "top1": best["top1"]}
        return self.run.finish(
            {"epochs": self.recipe.epochs, "steps": self.steps, **metrics, "timing": timing}
        )
