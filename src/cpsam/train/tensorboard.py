"""What a run reports, for TensorBoard. Imported only when it is asked for."""

from pathlib import Path
from typing import Any

from cpsam.errors import UserError

STEP, EPOCH = ("loss", "lr", "images_per_s"), ("train_loss", "loss", "top1", "top5")


class Board:
    """Writes events into a folder; a resumed run takes back what was written beyond its checkpoint.

    Args:
        folder: Of the event files.

    Raises:
        UserError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard is not installed: pip install 'cpsam[tensorboard]'"
            ) from error
        self.folder, self.make = folder, SummaryWriter
        self.writer: Any = None

    def open(self, step: int) -> None:
        """Begin after so many steps."""
        self.writer = self.make(str(self.folder), purge_step=step + 1)

    def __call__(self, event: dict[str, Any]) -> None:
        names = {"step": STEP, "epoch": EPOCH}.get(event["event"], ())
        for name in names:
            self.writer.add_scalar(f"{event['event']}/{name}", event[name], event["step"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
