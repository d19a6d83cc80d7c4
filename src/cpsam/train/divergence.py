"""Finds out that a run diverges, and says where and on which images; reports spikes of the loss."""

import math
import statistics
from collections import deque
from collections.abc import Sequence

import torch
from torch import nn

from cpsam.data.batches import rank_slice
from cpsam.errors import DataError, DivergedError
from cpsam.train.checkpointing import CheckpointManager
from cpsam.train.context import TrainContext
from cpsam.train.step import Gradients

WINDOW, FEWEST = 64, 16  # How many losses the median is of at most, and at least.
SPIKE_FACTOR, SPIKE_RISE = 2.0, 0.5
# Other buffers, such as masks, may hold infinity by design.
STATISTICS = ("running_mean", "running_var")


class DivergenceReporter:
    """Checks that what a run computes is finite, and describes what is not.

    Args:
        context: The run.
        eval_model: The network that is evaluated and kept: `context.model`, or its average.
        checkpoints: Its checkpoints. The last one is on the disk before an error names it.
    """

    def __init__(
        self, context: TrainContext, eval_model: nn.Module, checkpoints: CheckpointManager
    ) -> None:
        self.context = context
        self.eval_model = eval_model
        self.checkpoints = checkpoints

    def check_start(self) -> None:
        """Checks the weights before the first step.

        Raises:
            DataError: If one is not finite.
        """
        if found := nonfinite_tensors(self.context.model):
            message = f"the weights of the network are not finite before the first step: {found}"
            raise self.context.distributed.mark_as_shared(DataError(message))

    def step_error(self, gradients: Gradients, loss: float, lr: float, step: int) -> DivergedError:
        """Returns the error for a step that must not be applied: what is not finite, and why.

        Every process must call it: it gathers the images from all of them.

        Args:
            gradients: Those of the step in this process.
            loss: Mean loss over the batch of all processes.
            lr: Learning rate of the step.
            step: Steps made before.
        """
        run = self.context
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif gradients.norm is not None:
            what = f"the gradient norm is {gradients.norm}"
        else:
            what = f"the gradients overflow at every scale, with a loss of {loss:.4g}"
        epoch = step // run.steps_per_epoch + 1
        where = (
            f"step {step + 1} of {run.steps}, in epoch {epoch} of {run.recipe.epochs}, with lr"
            f" {lr:.4g}"
        )
        images = self.nonfinite_images(gradients, step)
        # A training step does not read the statistics of norms.
        if found := nonfinite_tensors(run.model, statistics=False):
            why = f"because weights are not finite: {found}"
        else:
            why = f"on train images {first_few(images)}"
        return self.error(f"{what} at {where}, {why}")

    def nonfinite_images(self, gradients: Gradients, step: int) -> list[int]:
        """Returns the train images whose loss is not finite in any process.

        If there is none, it returns the whole batch.
        """
        run = self.context
        batch = run.batches(step // run.steps_per_epoch)[step % run.steps_per_epoch]
        own = rank_slice(batch, run.distributed.rank, run.distributed.world_size)
        marks = torch.zeros(len(run.dataset.train), dtype=torch.float64, device=run.device)
        marks[own[gradients.nonfinite_images]] = 1
        found = run.distributed.all_reduce(marks).nonzero().flatten().tolist()
        return found or batch.tolist()

    def check_epoch(self, loss: float, epoch: int, step: int) -> None:
        """Checks the result of an epoch before it is stored.

        After the last epoch it also checks the weights, because no later step would find them.

        Raises:
            DivergedError: If something is not finite.
        """
        run = self.context
        wrong = [] if math.isfinite(loss) else [f"the evaluation loss is {loss}"]
        if epoch == run.recipe.epochs:
            networks = {"the weights": run.model}
            if self.eval_model is not run.model:
                networks["the averaged weights"] = self.eval_model
            wrong += [
                f"{name} are not finite: {found}"
                for name, network in networks.items()
                if (found := nonfinite_tensors(network))
            ]
        if wrong:
            raise self.error(
                f"{'; '.join(wrong)}, at the end of epoch {epoch} of {run.recipe.epochs}, after"
                f" step {step} of {run.steps}"
            )

    def error(self, message: str) -> DivergedError:
        self.checkpoints.writer.wait()
        run = self.context.run
        return self.context.distributed.mark_as_shared(
            DivergedError(f"{message}; {run.newest_checkpoint} ({run.checkpoints})")
        )


class SpikeDetector:
    """Finds losses far above the median.

    No result depends on it, so it is not part of a checkpoint.
    """

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def update(self, loss: float) -> float | None:
        """Counts a loss.

        Returns:
            The median of the losses before it, if this one is more than twice as high and more than
            0.5 nats above it; else None.
        """
        median = math.inf
        if len(self.losses) >= FEWEST and loss > SPIKE_RISE:
            median = statistics.median(self.losses)
        self.losses.append(loss)
        return median if loss > max(SPIKE_FACTOR * median, median + SPIKE_RISE) else None


def first_few(samples: Sequence[int], most: int = 8) -> str:
    """Returns the first few of many numbers.

    Example:
        >>> first_few([3, 1, 4, 1, 5], most=3)
        '3, 1, 4 and 2 more'
    """
    head = ", ".join(str(sample) for sample in samples[:most])
    return head if len(samples) <= most else f"{head} and {len(samples) - most} more"


def nonfinite_tensors(module: nn.Module, statistics: bool = True) -> str:
    """Returns how many parameters and statistics of norms are not finite, and the first name.

    The text is empty if all are finite.
    """
    buffers = [
        (name, tensor)
        for name, tensor in module.named_buffers()
        if statistics and name.endswith(STATISTICS)
    ]
    named = [
        (name, tensor)
        for name, tensor in (*module.named_parameters(), *buffers)
        if tensor.is_floating_point()
    ]
    found = [name for name, tensor in named if not tensor.detach().isfinite().all()]
    return f"{found[0]}, the first of {len(found)} of {len(named)} tensors" if found else ""
