"""Inserts attention into a model and takes it out again; no name of a weight changes."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from cpsam.insert.hook import AttentionBlocks, blocks_at, hang, is_place, places, unhang
from cpsam.insert.inputs import Example
from cpsam.insert.make import Block, build, maker
from cpsam.insert.placement import resolve
from cpsam.insert.probe import probe
from cpsam.insert.refusals import (
    check_host,
    check_place,
    check_shape,
    refuse_collectors,
    warn_of_rebuilding,
)
from cpsam.insert.slots import forget_slots, keep_in_slots


def attach(model: nn.Module, path: str, block: nn.Module) -> None:
    """Lets `block` work on what the place at `path` returns, after the blocks that it has."""
    place = model.get_submodule(path)
    if is_place(place):
        blocks_at(place).append(block)
    else:
        hang(AttentionBlocks(block).train(place.training), place)
        keep_in_slots(model.get_submodule(path.rpartition(".")[0]))


def attach_all(model: nn.Module, blocks: Sequence[tuple[str, nn.Module]]) -> None:
    """Attaches blocks to their paths, in order."""
    warn_of_rebuilding(model)
    for path, block in blocks:
        attach(model, path, block)
    forget_compiled_code()


def forget_compiled_code() -> None:
    """Resets torch.compile, whose code would go on without the new blocks."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def insert_attention(
    model: nn.Module,
    block: Block,
    at: str | Sequence[str] = "before-last",
    example_input: Example | None = None,
    **arguments: Any,
) -> list[str]:
    """Inserts a block after each place of a model, in place.

    What the place returns goes through the block. The model's state-dict keys do not change; the
    new ones are ``<place>.attention.<index>.*``. Later calls compose with earlier ones in order. On
    an error the model is left as it was.

    Args:
        model: Any network on images. It must call its places as modules, not through
            ``.forward()``.
        block: A name in ``ATTENTION``, also with arguments as on the command line
            (``"cpsam:fusion=sum"``), or a callable from the number of channels to a module.
        at: Names of placements, or module paths, in which ``*`` is one segment: ``"layer3.*"`` is
            the blocks of layer3, not their convolutions.
        example_input: Images (N, C, H, W) that the model takes, if it does not take any size or has
            no Conv2d. Several arguments are a tuple, or a dict by name.
        **arguments: Arguments of the block.

    Returns:
        The paths of the modules that it touched, in the order of the model. A ``nn.Sequential``
        stands for its last element.

    Raises:
        UserError: If a name or an argument is unknown, a place does not fit, or the model is
            compiled, scripted or wrapped for distribution.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18()
        >>> insert_attention(model, "cpsam", at="before-last", fusion="sum")
        ['layer2.0', 'layer3.0', 'layer4.0']
    """
    check_host(model)
    make = maker(block, arguments)
    seen = probe(model, example_input)
    made: dict[str, nn.Module] = {}
    containers: dict[str, nn.Module] = {}
    for path in resolve(model, at, seen):
        place, channels = model.get_submodule(path), seen.channels(path)
        made[path] = build(partial(make, channels), f"a block on {channels} channels", place, model)
        check_place(path, place, made[path])
        check_shape(made[path], channels)
        if not is_place(place) and any(place.children()):
            containers[path] = place
    refuse_collectors(model, containers, seen.images)
    attach_all(model, list(made.items()))
    return list(made)


def remove_attention(model: nn.Module) -> list[str]:
    """Takes all inserted blocks out again, in place, and returns the paths that had any."""
    found = places(model)
    for _, place in found:
        unhang(place)
    forget_slots(model)
    forget_compiled_code()
    return [path for path, _ in found]


def attention_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yields the parameters of the inserted blocks, such as for a learning rate of their own.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18().requires_grad_(False)
        >>> _ = insert_attention(model, "cpsam")
        >>> for parameter in attention_parameters(model):
        ...     _ = parameter.requires_grad_(True)
    """
    for _, place in places(model):
        yield from blocks_at(place).parameters()
