"""What keeps a run safe and watched. Nothing of it changes the result, so a run may be continued
with other values. No torch here: the command line builds its flags from these fields.
"""

from dataclasses import dataclass, fields

from cpsam.config.recipe import shown
from cpsam.errors import UserError

MOST = 1_000_000_000  # steps, or minutes


@dataclass(frozen=True)
class RunOptions:
    """When to save, when to stop, what else to write. Each number is at most 1,000,000,000.

    Args:
        checkpoint_steps: Save after every so many steps; 0: not by steps. The end of an epoch and a
            stop always save.
        checkpoint_minutes: Save after so many minutes without a checkpoint; 0: not by time.
        keep: Checkpoints to keep; a damaged one falls back to the one before, so one is few.
        max_minutes: Stop after so many minutes with a checkpoint, as on a signal; 0: never.
        tensorboard: Write what is reported for TensorBoard too, into tensorboard/ of the run
            folder (extra tensorboard).

    Raises:
        UserError: If a value breaks its rule.
    """

    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    keep: int = 2
    max_minutes: float = 0.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 1 if field.name == "keep" else 0
            if not least <= value <= MOST:
                bound = f"at most {MOST:,}" if value > MOST else f"at least {least}"
                raise UserError(f"{field.name} must be {bound}; got {shown(value)}")
