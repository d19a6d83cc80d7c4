"""Names that layers of the blocks had before. A state dict that was saved under them still loads."""

import re
from collections.abc import Container, Mapping
from typing import Any, TypeVar

from torch import nn

Value = TypeVar("Value")
FUSE = re.compile(r"^((?:.*\.)?)fuse\.")
"""The fusing convolution of before; the last of that name, because a host may have its own around it."""


def current_key(key: str) -> str:
    """Returns a key of a state dict with the names of today.

    Example:
        >>> current_key("layer3.attention.0.fuse.conv.weight")
        'layer3.attention.0.fusing_conv.conv.weight'
    """
    return FUSE.sub(r"\1fusing_conv.", key)


def with_current_keys(state: Mapping[str, Value], own: Container[str]) -> dict[str, Value]:
    """Returns `state` with the names of today, where only these are in `own`: a host may have a ``fuse`` of its own."""
    return {new if key not in own and (new := current_key(key)) in own and new not in state else key: state[key] for key in state}


def accept_old_names(block: nn.Module) -> None:
    """Makes ``load_state_dict`` of a block, or of a network around it, take the names of before."""
    block.register_load_state_dict_pre_hook(rename_old_keys)


def rename_old_keys(block: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Renames the keys of `block` in the copy that ``load_state_dict`` makes."""
    for key in [key for key in state if key.startswith(f"{prefix}fuse.")]:
        if (new := current_key(key)) not in state:
            state[new] = state.pop(key)
