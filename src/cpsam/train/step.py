"""One optimizer step: a pure function of the weights, the batch, the recipe, the seed and the step
number.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cpsam.config.recipe import Recipe
from cpsam.evaluate import autocast, checked_logits
from cpsam.seeds import derive_seed
from cpsam.train.compute import Compute
from cpsam.train.distributed import Distributed
from cpsam.train.mix import mix_batch

LEAST_SCALE = 1.0  # below it, the scaler has halved its way out of what overflows alone explain


@dataclass(frozen=True)
class Gradients:
    """What is known when the gradients are there and the optimizer has not moved.

    Args:
        loss: Sum over this process's images of the batch.
        norm: Length of the gradient over all parameters; None under a scaler, whose overflows are
            routine.
        bad: Which of this process's images have a loss that is not finite.
    """

    loss: float
    norm: float | None
    bad: list[int]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and (self.norm is None or math.isfinite(self.norm))


class Update:
    """Makes steps on one model.

    Args:
        model: On `device`, in its memory format.
        recipe: How.
        seed: The run's seed.
        num_classes: Width of the logits.
        compute: Precision.
        device: Where it computes.
        distributed: The processes that compute a step together.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        seed: int,
        num_classes: int,
        compute: Compute,
        device: torch.device,
        distributed: Distributed,
    ) -> None:
        self.recipe, self.seed, self.num_classes, self.device, self.distributed = (
            recipe,
            seed,
            num_classes,
            device,
            distributed,
        )
        self.precision = compute.precision
        self.optimizer = make_optimizer(model, recipe)
        self.parameters = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        self.scaler = torch.amp.GradScaler(device.type) if compute.precision == "float16" else None
        self.model = model

    def wrap(self) -> None:
        """From here on, gradients are means over all processes; the weights are in place."""
        self.model = self.distributed.data_parallel(self.model, self.device)

    def compute(self, x: Tensor, y: Tensor, step: int, images: int) -> Gradients:
        """The gradient of the mean loss of a batch.

        Args:
            x: This process's images, (N, C, H, W).
            y: Their labels, (N,).
            step: Optimizer steps made before.
            images: Images of the batch over all processes.
        """
        recipe, readings, targets = self.recipe, [], y
        if recipe.mixup or recipe.cutmix:
            x, targets = mix_batch(
                x,
                y,
                self.num_classes,
                mixup=recipe.mixup,
                cutmix=recipe.cutmix,
                seed=self.seed,
                step=step,
            )
        # BatchNorm cannot train on a single image
        parts = max(1, min(recipe.accumulate, len(x) // 2))
        self.optimizer.zero_grad(set_to_none=True)
        for part, (inputs, labels) in enumerate(
            zip(x.tensor_split(parts), targets.tensor_split(parts), strict=True)
        ):
            # dropout and the like
            torch.manual_seed(derive_seed(self.seed, "step", step, self.distributed.rank, part))
            with self.alone(part + 1 < parts):
                with autocast(self.precision, self.device):
                    logits = checked_logits(self.model(inputs), len(inputs), self.num_classes)
                loss = self.cross_entropy(logits, labels, "mean")
                readings.append((Reading(loss), len(inputs), logits.detach(), labels))
                share = len(inputs) * self.distributed.world_size / images
                scaled = loss if share == 1 else loss * share
                (scaled if self.scaler is None else self.scaler.scale(scaled)).backward()
        norm = self.limit()
        total = sum(reading.value() * count for reading, count, _, _ in readings)
        bad: list[int] = []
        if not math.isfinite(total):
            losses = torch.cat(
                [self.cross_entropy(logits, labels, "none") for _, _, logits, labels in readings]
            )
            bad = losses.isfinite().logical_not().nonzero().flatten().tolist()
        return Gradients(total, None if norm is None else norm.item(), bad)

    def cross_entropy(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        """In float32 at least; labels are classes, or a distribution over them for each image."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = labels.to(logits.dtype) if labels.is_floating_point() else labels
        return F.cross_entropy(
            logits, targets, reduction=reduction, label_smoothing=self.recipe.label_smoothing
        )

    def alone(self, more: bool) -> AbstractContextManager[object]:
        """Gradients travel with the last part of a batch, not with those before it."""
        return (
            self.model.no_sync()
            if more and isinstance(self.model, DistributedDataParallel)
            else nullcontext()
        )

    def limit(self) -> Tensor | None:
        """The length of the gradient, which is clipped if the recipe says so."""
        if self.scaler is not None:
            if not self.recipe.clip_norm:
                return None
            self.scaler.unscale_(self.optimizer)
        norm = get_total_norm(
            [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        )
        if self.recipe.clip_norm:
            clip_grads_with_norm_(self.parameters, self.recipe.clip_norm, norm)
        return norm if self.scaler is None else None

    def move(self, lr: float) -> bool:
        """Let the optimizer make the step; False if its scaler has shrunk so far that the gradients
        cannot be finite any more.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.scaler is None:
            self.optimizer.step()
            return True
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= LEAST_SCALE


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's factory; parameters with one axis, biases and norms among them, get no weight
    decay.
    """
    # A fused SGD whose first step the scaler skips goes on with a momentum that was never set
    # (torch 2.14).
    options: dict[str, Any] = {"fused": recipe.precision != "float16"}
    if recipe.optimizer != "adamw":
        options["momentum"] = recipe.momentum
    return create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, **options
    )


class Reading:
    """The value of a loss, on its way to the host while the device computes on: asked for after the
    backward pass, it is there.
    """

    def __init__(self, loss: Tensor) -> None:
        self.host = loss.detach().to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if loss.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def value(self) -> float:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host.item()
