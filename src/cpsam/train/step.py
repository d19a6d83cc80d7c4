"""One optimizer step.

It is a pure function of the weights, the batch, the recipe, the seed and the step number.
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

SMALLEST_SCALE = 1.0  # Overflows alone do not make the scaler halve its scale below this.


@dataclass(frozen=True)
class Gradients:
    """What is known once the gradients are there, before the optimizer applies them.

    Args:
        loss: Sum of the losses of this process's images of the batch.
        norm: L2 norm of the gradient over all parameters. None under a scaler, where an overflow is
            routine.
        nonfinite_images: Positions, in this process's part of the batch, of the images whose loss
            is not finite.
    """

    loss: float
    norm: float | None
    nonfinite_images: list[int]

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and (self.norm is None or math.isfinite(self.norm))


class TrainStep:
    """Makes optimizer steps on one model: :meth:`compute_gradients`, then :meth:`apply`.

    Args:
        model: On `device`, in its memory format.
        recipe: Optimizer, loss, mixing, clipping and accumulation.
        seed: The run's seed.
        num_classes: Width of the logits.
        compute: Its precision.
        device: Where the model computes.
        distributed: The processes that compute a step together. The gradients are their mean.
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
        self.recipe = recipe
        self.seed = seed
        self.num_classes = num_classes
        self.precision = compute.precision
        self.device = device
        self.distributed = distributed
        self.model = distributed.data_parallel(model, device)
        self.optimizer = make_optimizer(model, recipe)
        self.parameters = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        self.scaler = torch.amp.GradScaler(device.type) if self.precision == "float16" else None

    def compute_gradients(self, x: Tensor, y: Tensor, step: int, images: int) -> Gradients:
        """Computes the gradient of the mean loss of a batch, and clips it if the recipe says so.

        Args:
            x: This process's images, (N, C, H, W).
            y: Their labels, (N,).
            step: Optimizer steps made before.
            images: Images of the batch over all processes.
        """
        recipe, targets = self.recipe, y
        if recipe.mixup or recipe.cutmix:
            rates = {"mixup": recipe.mixup, "cutmix": recipe.cutmix}
            x, targets = mix_batch(x, y, self.num_classes, **rates, seed=self.seed, step=step)
        # BatchNorm cannot train on a single image.
        count = max(1, min(recipe.accumulate, len(x) // 2))
        micro_batches = zip(x.tensor_split(count), targets.tensor_split(count), strict=True)
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[tuple[HostScalar, int]] = []
        outputs: list[tuple[Tensor, Tensor]] = []
        for index, (inputs, labels) in enumerate(micro_batches):
            # Dropout and the like draw from torch's global generator.
            torch.manual_seed(derive_seed(self.seed, "step", step, self.distributed.rank, index))
            with self.gradient_sync(last=index + 1 == count):
                with autocast(self.precision, self.device):
                    logits = checked_logits(self.model(inputs), len(inputs), self.num_classes)
                loss = self.cross_entropy(logits, labels, "mean")
                losses.append((HostScalar(loss), len(inputs)))
                outputs.append((logits.detach(), labels))
                weight = len(inputs) * self.distributed.world_size / images
                weighted = loss if weight == 1 else loss * weight
                (weighted if self.scaler is None else self.scaler.scale(weighted)).backward()
        norm = self.clip_gradients()
        total = sum(loss.item() * size for loss, size in losses)
        nonfinite: list[int] = []
        if not math.isfinite(total):
            each = torch.cat([self.cross_entropy(*output, "none") for output in outputs])  # (N,)
            nonfinite = each.isfinite().logical_not().nonzero().flatten().tolist()
        return Gradients(total, None if norm is None else norm.item(), nonfinite)

    def cross_entropy(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        """Returns the loss, in float32 at least.

        Labels are classes, or a distribution over them per image.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = labels.to(logits.dtype) if labels.is_floating_point() else labels
        return F.cross_entropy(
            logits, targets, reduction=reduction, label_smoothing=self.recipe.label_smoothing
        )

    def gradient_sync(self, last: bool) -> AbstractContextManager[object]:
        """Returns a context in which only the last micro-batch averages over the processes."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def clip_gradients(self) -> Tensor | None:
        """Clips the gradient if the recipe says so, and returns its norm from before."""
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

    def apply(self, lr: float) -> bool:
        """Makes the optimizer step with this learning rate.

        Returns:
            False if the scaler has shrunk so far that the gradients cannot become finite again.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.scaler is None:
            self.optimizer.step()
            return True
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= SMALLEST_SCALE


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns the optimizer of timm's factory.

    Parameters with one axis, such as biases and the weights of norms, get no weight decay.
    """
    # If the scaler skips the first step of a fused SGD, the next one uses a momentum that was never
    # set (torch 2.14).
    options: dict[str, Any] = {"fused": recipe.precision != "float16"}
    if recipe.optimizer != "adamw":
        options["momentum"] = recipe.momentum
    return create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, **options
    )


class HostScalar:
    """Copies a scalar to the host while the device computes on.

    So reading it after the backward pass does not wait.
    """

    def __init__(self, value: Tensor) -> None:
        self.host = value.detach().to("cpu", non_blocking=True)
        self.copied = torch.cuda.Event() if value.is_cuda else None
        if self.copied is not None:
            self.copied.record()

    def item(self) -> float:
        if self.copied is not None:
            self.copied.synchronize()
        return self.host.item()
