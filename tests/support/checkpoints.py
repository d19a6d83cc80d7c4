"""Writes checkpoints of any tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cpsam import checkpoint
from cpsam.weights_file import storable


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int = 2
) -> Path:
    """Copies the tensors and writes them as a checkpoint."""
    return checkpoint.save_checkpoint(folder, step, storable(tensors), meta, keep)
