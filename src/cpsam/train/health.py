"""What a loss says about a run: gone for good, or a spike to tell of."""

import math
import statistics
from collections import deque
from collections.abc import Sequence

from torch import nn

WINDOW, FEWEST = 64, 16  # losses that are remembered, and how many a judgement needs
SPIKE_FACTOR, SPIKE_RISE = 2.0, 0.5


class Spikes:
    """Finds losses far above the usual. It only tells: no result depends on it, so it is not part
    of a checkpoint.
    """

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def usual(self, loss: float) -> float | None:
        """The median of the last losses, if this one is twice as high and by more than 0.5 nats;
        None if it is not.
        """
        middle = (
            statistics.median(self.losses)
            if len(self.losses) >= FEWEST and loss > SPIKE_RISE
            else math.inf
        )
        self.losses.append(loss)
        return middle if loss > SPIKE_FACTOR * middle and loss > middle + SPIKE_RISE else None


def listed(samples: Sequence[int], most: int = 8) -> str:
    """The first few of many.

    Example:
        >>> listed([3, 1, 4, 1, 5], most=3)
        '3, 1, 4 and 2 more'
    """
    head = ", ".join(str(sample) for sample in samples[:most])
    return head if len(samples) <= most else f"{head} and {len(samples) - most} more"


# Other buffers, such as masks, may hold infinity by design.
STATISTICS = ("running_mean", "running_var")


def broken_tensors(module: nn.Module, statistics: bool = True) -> str:
    """Returns how many parameters and statistics of norms hold a value that is not finite, and the
    first; empty if none does.
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
    broken = [name for name, tensor in named if not tensor.detach().isfinite().all()]
    return f"{broken[0]}, the first of {len(broken)} of {len(named)} tensors" if broken else ""
