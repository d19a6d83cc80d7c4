"""BatchNorm with the statistics of the images of all GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn

from cpsam.errors import UserError
from cpsam.insert.place_class import own_class

SYNCHRONOUS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: nn.SyncBatchNorm,
    nn.BatchNorm2d: nn.SyncBatchNorm,
    nn.BatchNorm3d: nn.SyncBatchNorm,
    BatchNormAct2d: SyncBatchNormAct,
}


@contextmanager
def synchronous(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Every BatchNorm of `model` works over all processes; it is its own again afterwards.

    The modules change their class and stay the same objects: torch's conversion makes new ones, and
    what hangs on the old ones, such as inserted attention, would be left behind.

    Raises:
        UserError: If the device is no GPU, for which torch has no such norm.
    """
    if device.type != "cuda":
        raise UserError(
            "sync_bn needs GPUs: torch has no BatchNorm over several processes for the CPU"
        )
    changed = [
        (module, type(module)) for module in model.modules() if own_class(module) in SYNCHRONOUS
    ]
    for module, _ in changed:
        module.__class__ = SYNCHRONOUS[own_class(module)]
        module.process_group = None  # pyrefly: ignore
    try:
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
            del module.process_group
