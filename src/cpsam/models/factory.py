"""One function from a name to a network, with attention inserted."""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

from cpsam.errors import UserError, unknown
from cpsam.insert import insert_attention
from cpsam.insert.hook import places
from cpsam.insert.surgery import Make
from cpsam.models.cifar_resnet import CIFAR_RESNETS, cifar_resnet
from cpsam.models.timm_models import MODELS
from cpsam.models.weights import load_pretrained
from cpsam.randomness import derive_seed

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_host(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """The bare network: ``resnet20``, ``timm/NAME`` or ``torchvision/NAME``."""
    library, _, rest = name.partition("/")
    if library == "timm" and rest:
        if not timm.is_model(rest):
            raise unknown("timm model", rest, timm.list_models())
        return timm.create_model(rest, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    if library == "torchvision" and rest:
        if rest not in (names := torchvision.models.list_models(module=torchvision.models)):
            raise unknown("torchvision model", rest, names)
        if in_channels != 3:
            raise UserError(f"torchvision models take 3 channels; the data has {in_channels}: use timm/{rest} or one of ours")
        return torchvision.models.get_model(rest, weights=None, num_classes=num_classes)
    if rest or name not in CIFAR_RESNETS:
        raise unknown("model", name, [*CIFAR_RESNETS, *(f"timm/{own}" for own in MODELS), "timm/NAME", "torchvision/NAME"])
    return cifar_resnet(name, num_classes, in_channels=in_channels)


def create_model(
    name: str,
    num_classes: int,
    *,
    in_channels: int = 3,
    attention: Make | None = None,
    at: str | Sequence[str] = "before-last",
    weights: Path | str | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network, load its pretrained weights, and insert attention, in this order.

    Args:
        name: One of ``CIFAR_RESNETS``, ``"timm/NAME"`` or ``"torchvision/NAME"``.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.
        attention: A name in ``ATTENTION``, or a callable from channels to a block. None: the network as its name says.
            ``"none"``: the bare network.
        at: Where, as in :func:`cpsam.insert.insert_attention`.
        weights: A file for the bare network, ``.safetensors`` or another's ``.pth``, of which only tensors are read. A classifier for
            another number of classes starts anew; anything else must fit.
        seed: Draw the network from one stream and the blocks from another, so that the networks of all arms of a comparison start alike.
            None: from torch's global generator.

    Raises:
        UserError: If a name is unknown, the weights do not fit, the insertion is refused, or `attention` is given for a network that has
            attention of its own, such as ``timm/cpsam_resnet50``.

    Example:
        >>> model = create_model("resnet20", 100, attention="cpsam", at="before-last")
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 100])
    """
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(derive_seed(seed, "network"))
        model = build_host(name, num_classes, in_channels)
        if attention is not None and places(model):
            raise UserError(f"{name} has attention of its own: name its host to choose which, or give no attention")
        if weights is not None:
            load_pretrained(model, weights, num_classes)
        if attention not in (None, "none"):
            if seed is not None:
                torch.manual_seed(derive_seed(seed, "attention"))
            insert_attention(model, attention, at)
    return model


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and sd a channel of the pixels in [0, 1] that pretrained weights of this network expect; None where no convention is known."""
    library, _, rest = name.partition("/")
    if library == "torchvision":
        return IMAGENET_MEAN, IMAGENET_STD
    if library == "timm":
        config = timm.get_pretrained_cfg(rest, allow_unregistered=False)
        return tuple(getattr(config, "mean", IMAGENET_MEAN)), tuple(getattr(config, "std", IMAGENET_STD))
    return None
