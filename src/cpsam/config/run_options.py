"""Says what keeps a run safe, watched and repeatable. No option changes what a run computes."""

from dataclasses import dataclass
from typing import Annotated

from cpsam.typed import Range, check

MOST = 1_000_000_000

Steps = Annotated[int, Range(least=0, most=MOST)]
Minutes = Annotated[float, Range(least=0, most=MOST)]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """When to save, when to stop, what else to write, and which kernels to take.

    A run may be continued with other options.

    Raises:
        UserError: If a value breaks its rule.
    """

    checkpoint_steps: Steps = 0
    """Save a checkpoint after this many steps; 0 does not count steps. The end of an epoch and a
    stop always save.
    """
    checkpoint_minutes: Minutes = 10.0
    """Save after this many minutes without a checkpoint; 0 does not count minutes."""
    keep: Annotated[int, Range(least=1, most=MOST)] = 2
    """Checkpoints to keep. If the newest is damaged, the one before it is read."""
    max_minutes: Minutes = 0.0
    """Stop after this many minutes with a checkpoint, as on a signal; 0 does not stop."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard too, into the folder tensorboard of the run (extra
    tensorboard).
    """
    deterministic: bool = False
    """Take only operations that give the same bits each time, and end with an error at any other
    one. On a GPU the fused attention of non_local needs it, and it may take time there.
    """

    def __post_init__(self) -> None:
        check(self)
