"""BatchNorm with the statistics of the images of all GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn

from cpsam.errors import UserError
from cpsam.insert.place_class import own_class

SYNCHRONISED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: nn.SyncBatchNorm,
    nn.BatchNorm2d: nn.SyncBatchNorm,
    nn.BatchNorm3d: nn.SyncBatchNorm,
    BatchNormAct2d: SyncBatchNormAct,
}


@contextmanager
def synchronised_norms(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Makes every BatchNorm of `model` work over all processes, and restores it afterwards.

    The modules change their class and stay the same objects. torch's conversion makes new ones, and
    what hangs on the old ones, such as inserted attention, would be lost.

    Raises:
        UserError: If the device is not a GPU: torch has no such norm for the CPU.
    """
    if device.type != "cuda":
        raise UserError(
            "sync_bn needs GPUs: torch has no BatchNorm over several processes for the CPU"
        )
    norms = [module for module in model.modules() if own_class(module) in SYNCHRONISED]
    changed = [(module, type(module)) for module in norms]
    for module, _ in changed:
        module.__class__ = SYNCHRONISED[own_class(module)]
        module.process_group = None  # pyrefly: ignore
    try:
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
            del module.process_group
