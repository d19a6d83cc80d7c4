"""Finds which network a file of weights fits, where it does not fit the one that was asked for."""

import re
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher

import timm
import torch
import torchvision
from torch import nn

from cpsam.errors import UserError
from cpsam.models.networks import NETWORKS

TRIED = 40
"""Networks that are built, without memory, to look at their shapes."""


def relatives(name: str) -> list[str]:
    """Returns the networks whose names differ in size or library, the nearest first.

    Those of the same library come before the others.
    """
    library, _, rest = name.rpartition("/")
    own = rest.partition(".")[0]
    family = re.match(r"[^\d]*", own)
    start = family[0] if family else own
    names = [
        *NETWORKS,
        *(
            f"torchvision/{other}"
            for other in torchvision.models.list_models(module=torchvision.models)
        ),
        *(f"timm/{other}" for other in timm.list_models(f"{start}*")),
    ]
    kin = [
        other
        for other in names
        if other != name and re.fullmatch(rf"{re.escape(start)}\d+\w?", other.rpartition("/")[2])
    ]

    def distance(other: str) -> tuple[bool, float]:
        there, _, rest = other.rpartition("/")
        return there != library, -SequenceMatcher(None, own, rest).ratio()

    return sorted(kin, key=distance)[:TRIED]


def lookalike(
    name: str, shapes: Mapping[str, torch.Size], build: Callable[[str], nn.Module]
) -> str | None:
    """Returns the nearest relative whose convolutions have the names and shapes of a file.

    None where those of the network itself have them: the file is then for this network, and
    something else is wrong with it.

    Args:
        name: The network that does not fit.
        shapes: Of the file, by key.
        build: Makes a network by name.
    """
    convolutions = {key: shape for key, shape in shapes.items() if len(shape) == 4}
    if not convolutions:
        return None
    for other in (name, *relatives(name)):
        try:
            with torch.device("meta"):
                state = build(other).state_dict()
        except UserError:
            continue  # torchvision's networks take three channels
        if convolutions == {key: tensor.shape for key, tensor in state.items() if tensor.ndim == 4}:
            return None if other == name else other
    return None
