"""Makes the blocks that are inserted: from a name and arguments, or with a callable."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from cpsam.attention.by_name import (
    allowed_arguments,
    block_maker,
    check_block,
    check_nothing_missing,
    parse_block,
)
from cpsam.errors import UserError, unknown

Block = str | Callable[..., nn.Module]
"""A name in ``ATTENTION`` with or without arguments, or a callable from channels to a module."""


def maker(block: Block, arguments: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """Returns a callable from a number of channels to a module.

    Raises:
        UserError: If the block or an argument is unknown, or an argument is given twice or missing.
    """
    if isinstance(block, str):
        name, in_words = parse_block(block)
        if twice := sorted(in_words.keys() & arguments.keys()):
            raise UserError(f"argument {twice[0]} is given twice: in {block!r} and by keyword")
        arguments = {**in_words, **arguments}
        check_block(name, arguments, block)
        check_nothing_missing(name, arguments, block)
        return block_maker(name, arguments)
    if isinstance(block, nn.Module) or not callable(block):
        raise UserError(
            "block must be a name or a callable from the number of channels to a module; got"
            f" {type(block).__name__}"
        )
    if not arguments:
        return block
    check_keywords(block, arguments)
    return partial(block, **arguments)


def check_keywords(make: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> None:
    """Refuses keywords that a callable does not take."""
    try:
        kinds = {parameter.kind for parameter in inspect.signature(make).parameters.values()}
    except ValueError:  # It has no signature.
        return
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return
    for argument in arguments:
        if argument not in allowed_arguments(make):
            raise unknown(f"argument of {name_of(make)}", argument, allowed_arguments(make))


def name_of(make: Callable[..., nn.Module]) -> str:
    return getattr(make, "__name__", type(make).__name__)


def build(make: partial[nn.Module], what: str, like: nn.Module, model: nn.Module) -> nn.Module:
    """Returns one block on the device, in the precision and in the mode of its place.

    Args:
        make: Makes the block.
        what: What messages call the block.
        like: The place.
        model: The host, for a place without parameters.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        block = make()
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be made: {why_not_made(make, error)}") from error
    if not isinstance(block, nn.Module):
        raise UserError(f"block must make a torch.nn.Module; got {type(block).__name__}")
    own = (p for source in (like, model) for p in source.parameters() if p.is_floating_point())
    if (parameter := next(own, None)) is not None:
        block.to(parameter.device, parameter.dtype)
    return block.train(like.training)


def why_not_made(make: partial[nn.Module], error: Exception) -> str:
    """Returns in one line why a call failed; a missing or unknown argument is named."""
    try:
        inspect.signature(make.func).bind(*make.args, **make.keywords)
    except TypeError as mismatch:
        missing = make.args and "missing" in str(mismatch)
        return f"{name_of(make.func)}: {mismatch}{'; give it by keyword' if missing else ''}"
    except ValueError:  # It has no signature.
        pass
    return str(error).partition("\n")[0]
