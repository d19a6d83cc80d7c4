"""Says which network a file of weights is for, where it is not the one that was asked for."""

import re
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher

import timm
import torch
import torchvision
from torch import nn

from cpsam.models.cifar_resnet import CIFAR_RESNETS

TRIED = 12
"""Networks that are built, without memory, to look at their shapes."""


def relatives(name: str) -> list[str]:
    """Networks whose names differ from this one in library or size, the nearest first."""
    own = name.rpartition("/")[2].partition(".")[0]
    family = re.match(r"[^\d]*", own)
    start = family[0] if family else own
    names = [
        *CIFAR_RESNETS,
        *(f"torchvision/{other}" for other in torchvision.models.list_models(module=torchvision.models)),
        *(f"timm/{other}" for other in timm.list_models(f"{start}*")),
    ]
    kin = [other for other in names if other != name and re.fullmatch(rf"{re.escape(start)}\d+\w?", other.rpartition("/")[2])]
    near = sorted(kin, key=lambda other: -SequenceMatcher(None, own, other.rpartition("/")[2]).ratio())
    return near[:TRIED]


def lookalikes(name: str, shapes: Mapping[str, torch.Size], build: Callable[[str], nn.Module]) -> list[str]:
    """Returns the relatives of a network whose convolutions and norms have just the shapes of a file.

    Args:
        name: The network that does not fit.
        shapes: Of the file, by key.
        build: Makes a network by name.
    """
    features = {key: shape for key, shape in shapes.items() if len(shape) != 2}
    found = []
    for relative in relatives(name):
        with torch.device("meta"):
            own = {key: tensor.shape for key, tensor in build(relative).state_dict().items()}
        conv = [key for key, shape in own.items() if len(shape) == 4]
        if conv and all(features.get(key) == own[key] for key in conv) and len(conv) == sum(len(shape) == 4 for shape in features.values()):
            found.append(relative)
    return found
