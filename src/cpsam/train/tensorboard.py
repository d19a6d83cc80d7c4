"""Writes what a run reports for TensorBoard, which is imported only when it is asked for."""

from pathlib import Path
from typing import Any

from cpsam.errors import UserError
from cpsam.train.events import Event

STEP, EPOCH = ("loss", "lr", "images_per_s"), ("train_loss", "loss", "top1", "top5")


class TensorBoardLogger:
    """Writes events into a folder.

    Args:
        folder: Folder of the event files.
        step: Steps made before. What an earlier process wrote beyond them is taken back.

    Raises:
        UserError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = import_writer()(str(folder), purge_step=step + 1)

    def log(self, event: Event) -> None:
        if event["event"] == "step":
            self.add("step", {name: event[name] for name in STEP}, event["step"])
        elif event["event"] == "epoch":
            self.add("epoch", {name: event[name] for name in EPOCH}, event["step"])

    def add(self, kind: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


def import_writer() -> Any:
    """Returns the class that writes event files.

    Raises:
        UserError: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("TensorBoard is not installed: pip install 'cpsam[tensorboard]'") from error
    return SummaryWriter
