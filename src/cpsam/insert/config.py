"""Writes down what is inserted in a model, and inserts it again."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from cpsam.attention import ATTENTION, argument_names, block_arguments
from cpsam.errors import UserError, unknown
from cpsam.insert.hook import blocks_at, host_modules, is_hooked, places
from cpsam.insert.make import build
from cpsam.insert.refusals import check_host, check_place, check_shape
from cpsam.insert.surgery import attach_all


def attention_config(model: nn.Module, complete: bool = True) -> list[dict[str, Any]]:
    """Returns what is inserted where, as plain data to store beside the weights.

    The form is ``[{"at", "attention", "arguments"}, ...]``. A block that is not one of ours is
    named by its class, and must keep each constructor argument as an attribute of the same name.

    Args:
        model: The network.
        complete: False leaves out the arguments that a block does not keep as plain values. Then
            the entries alone do not suffice to make the blocks again.

    Raises:
        UserError: If a block does not keep an argument, or nothing calls the blocks.
    """
    names = {block: name for name, block in ATTENTION.items()}
    entries = []
    for path, place in places(model):
        # torch.fx makes plain modules, and its graph calls the blocks itself.
        if not is_hooked(place) and type(place) is not nn.Module:
            raise UserError(
                f"nothing calls the attention at {path!r}: a tool that made this module did not"
                " take over its hook"
            )
        for block in blocks_at(place):
            missing = [name for name in argument_names(type(block)) if not hasattr(block, name)]
            if missing and complete:
                raise UserError(
                    f"{type(block).__name__} at {path!r} does not keep its argument {missing[0]!r}"
                    " as an attribute"
                )
            name = names.get(type(block), type(block).__name__)
            is_ours = type(block) in names
            arguments = block_arguments(block) if complete or is_ours else kept_arguments(block)
            entries.append({"at": path, "attention": name, "arguments": arguments})
    return entries


def kept_arguments(block: nn.Module) -> dict[str, Any]:
    """Returns the constructor arguments that a block keeps as plain values."""
    kept = {name: getattr(block, name, ...) for name in argument_names(type(block))}
    plain = str | int | float | None
    return {name: value for name, value in kept.items() if isinstance(value, plain)}


def insert_from_config(
    model: nn.Module,
    config: Sequence[Mapping[str, Any]],
    blocks: Mapping[str, type[nn.Module]] | None = None,
) -> list[str]:
    """Inserts again what :func:`attention_config` says, without a probe; load weights afterwards.

    Args:
        model: The host, as it was before the insertion.
        config: The stored entries. They name blocks; no code comes from them.
        blocks: Classes of other blocks by name.

    Raises:
        UserError: If an entry is malformed, names a block or a place that is not there, or makes a
            block that returns another shape.
    """
    check_host(model)
    if not isinstance(config, Sequence) or isinstance(config, str):
        raise UserError(f"the configuration must be a list of entries; got {type(config).__name__}")
    known = {**ATTENTION, **(blocks or {})}
    modules = {path: module for path, module in host_modules(model) if path}
    made: list[tuple[str, nn.Module, nn.Module]] = []
    for entry in config:
        if (
            not isinstance(entry, Mapping)
            or set(entry) != {"at", "attention", "arguments"}
            or not isinstance(entry["arguments"], Mapping)
        ):
            raise UserError(
                "an entry of the configuration has the keys at, attention, arguments; got"
                f" {entry!r}"
            )
        path, name = entry["at"], entry["attention"]
        if not isinstance(path, str) or not isinstance(name, str):
            raise UserError(f"at and attention of an entry are words; got {path!r} and {name!r}")
        if name not in known:
            raise unknown("attention", name, known)
        if path not in modules:
            raise UserError(
                f"the configuration inserts at {path!r}, which this model does not have"
            )
        block = build(
            partial(known[name], **entry["arguments"]),
            f"the {name!r} of the configuration at {path!r}",
            modules[path],
            model,
        )
        check_place(path, modules[path], block, [other for at, _, other in made if at == path])
        check_shape(block, entry["arguments"].get(next(iter(argument_names(known[name])), "")))
        made.append((path, modules[path], block))
    attach_all(model, [(path, block) for path, _, block in made])
    return list(dict.fromkeys(path for path, _, _ in made))
