"""Builds a network by name, inserts attention, and loads weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from cpsam.errors import UserError, unknown
from cpsam.insert import insert_attention
from cpsam.insert.hook import places
from cpsam.insert.make import Block
from cpsam.models.lookalikes import lookalike
from cpsam.models.networks import NETWORKS, build_network
from cpsam.models.run_weights import check_model
from cpsam.models.timm_models import MODELS
from cpsam.models.weights import MisfitError, load_pretrained
from cpsam.seeds import derive_seed

INCEPTIONS = ("googlenet", "inception_v3")
"""Networks of torchvision whose published weights want their input rescaled. They are built so with
and without weights.

Their auxiliary heads are left out: they are not used after training, and training here takes one
output.
"""
INCEPTION_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": True}


def build_own(network: Callable[[], object]) -> nn.Module:
    """Returns the network that a person's own callable makes."""
    made = network()
    if not isinstance(made, nn.Module):
        raise UserError(f"model must return a torch.nn.Module; got {type(made).__name__}")
    return made


def build_host(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Returns the bare network: ``resnet20``, ``timm/NAME`` or ``torchvision/NAME``."""
    library, _, rest = name.partition("/")
    if library == "timm" and rest:
        if not timm.is_model(rest):
            raise unknown("timm model", rest, timm.list_models())
        return timm.create_model(
            rest, pretrained=False, num_classes=num_classes, in_chans=in_channels
        )
    if library == "torchvision" and rest:
        if rest not in (names := torchvision.models.list_models(module=torchvision.models)):
            raise unknown("torchvision model", rest, names)
        if in_channels != 3:
            raise UserError(
                f"torchvision models take 3 channels; the data has {in_channels}: use timm/{rest}"
                " or one of ours"
            )
        options = INCEPTION_OPTIONS if rest in INCEPTIONS else {}
        return torchvision.models.get_model(rest, weights=None, num_classes=num_classes, **options)
    if rest or name not in NETWORKS:
        raise unknown(
            "model",
            name,
            [*NETWORKS, *(f"timm/{own}" for own in MODELS), "timm/NAME", "torchvision/NAME"],
        )
    return build_network(name, num_classes, in_channels)


def create_model(
    name: str | Callable[[], nn.Module],
    num_classes: int,
    *,
    in_channels: int = 3,
    attention: Block | None = None,
    at: str | Sequence[str] = "before-last",
    weights: Path | str | None = None,
    weights_key: str | None = None,
    seed: int | None = None,
    on_note: Callable[[str], None] = lambda text: None,
    **arguments: Any,
) -> nn.Module:
    """Builds a network, inserts attention, and loads pretrained weights, in this order.

    Args:
        name: One of ``NETWORKS``, ``"timm/NAME"`` or ``"torchvision/NAME"``; or a callable
            that returns a network for `num_classes` and `in_channels`.
        num_classes: Width of the classifier.
        in_channels: Channels of the images.
        attention: As `block` in :func:`cpsam.insert_attention`. None: the network as its name says.
            ``"none"``: the bare network.
        at: Where, as in :func:`cpsam.insert.insert_attention`.
        weights: A file of weights of the bare network, safetensors or one of torch, of which only
            tensors are read; or the folder of a finished run of the same network, bare or with the
            same blocks. A classifier for another number of classes starts anew; anything else must
            fit.
        weights_key: Which tensors to take where the file holds several that fit, as in
            :func:`load_pretrained`.
        seed: Draw the network from one stream and the blocks from another, so that the networks of
            all arms of a comparison start alike. None: from torch's global generator.
        on_note: Receives one line for each decision about the network and its weights.
        **arguments: Arguments of the blocks, such as ``fusion="sum"``.

    Raises:
        UserError: If a name is unknown, the weights do not fit or `weights_key` is given without
            them, the insertion is refused, or `attention` is given for a network that has attention
            of its own, such as ``timm/cpsam_resnet50``.

    Example:
        >>> model = create_model("resnet20", 100, attention="cpsam", at="before-last")
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 100])
    """
    bare = attention is None or (isinstance(attention, str) and attention.lower() == "none")
    if bare and arguments:
        raise UserError(f"{next(iter(arguments))} is for blocks; give the block as attention")
    if weights is None and weights_key is not None:
        raise UserError(
            f"weights_key says which weights of a file to take; got {weights_key!r} and no weights"
        )
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(derive_seed(seed, "network"))
        is_named = isinstance(name, str)
        model = build_host(name, num_classes, in_channels) if is_named else build_own(name)
        if attention is not None and places(model):
            who = name if is_named else "the network"
            raise UserError(
                f"{who} has attention of its own: name its host to choose which, or give no"
                " attention"
            )
        if is_named and name.removeprefix("torchvision/") in INCEPTIONS:
            on_note(
                f"{name} has no auxiliary heads here, and rescales its input as torchvision's"
                " published weights want (transform_input)"
            )
        if attention is not None and not bare:
            if seed is not None:
                torch.manual_seed(derive_seed(seed, "attention"))
            insert_attention(model, attention, at, **arguments)
    if weights is not None:
        if isinstance(name, str):
            check_model(Path(weights), name)
        try:
            notes = load_pretrained(model, weights, num_classes, key=weights_key)
        except MisfitError as error:
            if not isinstance(name, str):
                raise
            other = lookalike(
                name, error.shapes, lambda other: build_host(other, num_classes, in_channels)
            )
            raise UserError(f"{error}{f'; they fit {other}' if other else ''}") from error
        for note in notes:
            on_note(f"weights: {note}")
    return model
