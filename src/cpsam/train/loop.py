"""The loop: epochs of steps, each a pure function of the weights, the recipe, the seed and the step number."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from cpsam.checkpoint import load_checkpoint, save_checkpoint, save_weights
from cpsam.data.batches import train_batches, train_indices
from cpsam.data.dataset import Dataset
from cpsam.errors import DivergedError, StoppedError, UserError
from cpsam.evaluate import autocast, evaluate
from cpsam.insert import attention_config
from cpsam.randomness import derive_seed
from cpsam.train.environment import environment
from cpsam.train.hardware import Setting, exact, find_device, settle
from cpsam.train.progress import Clock
from cpsam.train.recipe import Recipe
from cpsam.train.run_folder import SETTLED, RunFolder, finished_summary, open_run
from cpsam.train.schedule import learning_rate
from cpsam.train.state import pack, unpack
from cpsam.train.stop import StopOnSignal

Event = dict[str, Any]
RESERVED = ("seed", "recipe", "dataset", SETTLED)


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
) -> dict[str, Any]:
    """Train a model and keep the run in a folder; the same call again continues where it was stopped or killed.

    A run that was interrupted ends with the same bits, weights and metrics, as one that was not, on the same kind of processor. A
    finished run is not repeated: its summary is read, and the model is left as it is (its trained weights are in `weights.safetensors`).

    Args:
        model: Trained in place, on `device`. Its initial weights must be the same in a call that continues a run.
        dataset: Trained on its train split, measured after every epoch on its test split.
        recipe: How.
        seed: Of order, augmentation and dropout, at least 0.
        folder: New or empty, or of this very run.
        config: What else makes the run what it is, as plain data, such as how the model was made. Stored in `config.json`.
        on_event: Called with small dicts, whose "event" is

            - "resumed": `epoch` finished before, and `warnings` about checkpoints that were damaged;
            - "step", at most twice a second: `epoch`, `epochs`, `step`, `steps`, `lr`, `loss`, `images_per_s`, `seconds_left`;
            - "evaluation": `epoch`, `epochs`, `images` done, `of` how many;
            - "epoch": the line of `metrics.jsonl`, and `epochs`.

            It may raise KeyboardInterrupt to stop the run.
        device: "cpu" or "cuda"; by default the GPU if there is one.

    Returns:
        The content of `summary.json`: `epochs`, `steps`, `train_loss`, `top1`, `top5`, `loss` and `n` of the last epoch, and `timing`.

    Raises:
        UserError: If the folder holds something else, or is in use by another process.
        DivergedError: If the loss is not finite; the optimizer has not moved on it.
        StoppedError: On Ctrl-C or SIGTERM.
        DataError: If the folder is damaged beyond what can be fallen back to.
    """
    if taken := [name for name in RESERVED if name in config]:
        raise ValueError(f"config must not have the key {taken[0]!r}, which the run writes itself")
    target = find_device(device)
    path, described = Path(folder), describe(dataset, recipe, seed, config, settle(recipe, target))
    if (summary := finished_summary(path, described)) is not None:
        return summary
    with open_run(path, described) as run:
        if run.summary is not None:
            return run.summary
        setting = Setting(**run.config[SETTLED])
        if setting.device != target.type:
            raise UserError(f"run folder {path} holds a run on {setting.device}, and this is {target.type}: the bits would not be the same")
        try:
            with StopOnSignal() as stop, exact(setting, target):
                return Training(model, dataset, recipe, seed, run, setting, target, stop, on_event or (lambda event: None)).run_all()
        except KeyboardInterrupt:
            done = len(run.records)
            kept = f"epochs 1 to {done} of {recipe.epochs} are kept in {path}" if done else "no epoch was finished"
            raise StoppedError(f"stopped: {kept}, and the same command continues") from None


def describe(dataset: Dataset, recipe: Recipe, seed: int, config: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """The content of `config.json`."""
    data = {"name": dataset.name, "fingerprint": dataset.fingerprint, "train": len(dataset.train), "test": len(dataset.test)}
    return {**config, "seed": seed, "recipe": recipe.to_dict(), "dataset": data, SETTLED: asdict(setting)}


@dataclass
class Training:
    """One call of :func:`train`: what it works with, and the step counter, its only clock."""

    model: nn.Module
    dataset: Dataset
    recipe: Recipe
    seed: int
    run: RunFolder
    setting: Setting
    device: torch.device
    stop: StopOnSignal
    on_event: Callable[[Event], None]
    step: int = 0  # optimizer steps made

    def __post_init__(self) -> None:
        if not self.recipe.augment:
            self.dataset = replace(self.dataset, padding=0, flip=False)
        self.model.to(self.device).to(memory_format=self.setting.memory_format)
        self.optimizer = make_optimizer(self.model, self.recipe)
        batches = train_indices(len(self.dataset.train), batch_size=self.recipe.batch_size, seed=self.seed, epoch=0)
        self.steps_per_epoch, self.images_per_epoch = len(batches), sum(map(len, batches))
        self.steps = self.recipe.epochs * self.steps_per_epoch

    def run_all(self) -> dict[str, Any]:
        self.run.write_environment(environment(self.setting, self.device))
        self.resume()
        self.clock = Clock(self.steps - self.step)
        while self.step < self.steps:
            self.finish_epoch(*self.train_epoch(self.step // self.steps_per_epoch))
        return self.summarise()

    def resume(self) -> None:
        checkpoint = load_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            self.run.keep_records(0)
            return
        unpack(checkpoint.tensors, checkpoint.meta, self.model, self.optimizer)
        self.step = checkpoint.step
        self.run.keep_records(self.step // self.steps_per_epoch)
        self.on_event({"event": "resumed", "epoch": len(self.run.records), "warnings": checkpoint.warnings})

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """Make the steps of an epoch, counted from 0; returns the mean loss over its images and the seconds that it took."""
        started, total = time.perf_counter(), 0.0
        self.model.train()
        batches = train_batches(
            self.dataset,
            batch_size=self.recipe.batch_size,
            seed=self.seed,
            epoch=epoch,
            device=self.device,
            channels_last=self.setting.channels_last,
        )
        for x, y in batches:
            self.stop.check()
            loss, lr = self.make_step(x, y)
            total += loss * len(y)
            if (pace := self.clock.tick(len(y))) is not None:
                position = {"epoch": epoch + 1, "epochs": self.recipe.epochs, "step": self.step, "steps": self.steps}
                self.on_event({"event": "step", **position, "lr": lr, "loss": loss, **pace})
        return total / self.images_per_epoch, time.perf_counter() - started

    def make_step(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """One optimizer step; returns the loss before it and its learning rate."""
        lr = learning_rate(self.recipe, self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(derive_seed(self.seed, "step", self.step))  # dropout and the like
        with autocast(self.setting.precision, self.device):
            logits = self.model(x)  # (N, num_classes)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.recipe.label_smoothing)
        reading = Reading(loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = reading.value()
        if not math.isfinite(value):
            raise self.diverged(value, lr)
        self.optimizer.step()
        self.step += 1
        return value, lr

    def diverged(self, loss: float, lr: float) -> DivergedError:
        done = len(self.run.records)
        last = f"the last checkpoint is of epoch {done}" if done else "there is no checkpoint yet"
        where = f"step {self.step + 1} of {self.steps}, in epoch {self.step // self.steps_per_epoch + 1} of {self.recipe.epochs}"
        return DivergedError(f"the loss is {loss} at {where}, with lr {lr:.4g}; {last} ({self.run.checkpoints})")

    def finish_epoch(self, train_loss: float, seconds: float) -> None:
        """Measure, then write the metrics, then the checkpoint: with a checkpoint, its metrics are always there."""
        started, epoch = time.perf_counter(), self.step // self.steps_per_epoch

        def on_batch(done: int, of: int) -> None:
            self.stop.check()
            self.on_event({"event": "evaluation", "epoch": epoch, "epochs": self.recipe.epochs, "images": done, "of": of})

        measured = evaluate(
            self.model,
            self.dataset,
            batch_size=self.recipe.batch_size,
            precision=self.setting.precision,
            device=self.device,
            channels_last=self.setting.channels_last,
            on_batch=on_batch,
        )
        lr = learning_rate(self.recipe, self.step - 1, self.steps_per_epoch)
        timing = {
            "train_seconds": seconds,
            "evaluation_seconds": time.perf_counter() - started,
            "images_per_s": self.images_per_epoch / seconds,
        }
        record = {"epoch": epoch, "step": self.step, "lr": lr, "train_loss": train_loss, **measured, "timing": timing}
        self.run.add_record(record)
        tensors, meta = pack(self.model, self.optimizer)
        save_checkpoint(self.run.checkpoints, self.step, tensors, meta)
        self.on_event({"event": "epoch", "epochs": self.recipe.epochs, **record})

    def summarise(self) -> dict[str, Any]:
        last, timings = self.run.records[-1], [record["timing"] for record in self.run.records]
        save_weights(self.run.weights, self.model.state_dict(), {"attention": attention_config(self.model)})
        timing = {name: sum(timing[name] for timing in timings) for name in ("train_seconds", "evaluation_seconds")}
        timing["images_per_s"] = self.images_per_epoch * self.recipe.epochs / timing["train_seconds"]
        metrics = {name: last[name] for name in ("train_loss", "top1", "top5", "loss", "n")}
        return self.run.finish({"epochs": self.recipe.epochs, "steps": self.steps, **metrics, "timing": timing})


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """timm's factory; parameters with one axis, biases and norms among them, get no weight decay."""
    options: dict[str, Any] = {"fused": True}
    if recipe.optimizer != "adamw":
        options["momentum"] = recipe.momentum
    return create_optimizer_v2(model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, **options)


class Reading:
    """The value of a loss, on its way to the host while the device computes on: asked for after the backward pass, it is there."""

    def __init__(self, loss: Tensor) -> None:
        self.host = loss.detach().to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if loss.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def value(self) -> float:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host.item()
