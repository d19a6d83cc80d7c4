"""Hangs a block on a place: a forward hook runs the child ``attention`` on its output."""

from collections.abc import Iterator
from typing import Any, Tuple  # noqa: UP035  TorchScript reads Tuple in the signature of a hook

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from cpsam.errors import UserError
from cpsam.insert.place_class import from_place_class, to_place_class


class AttentionBlocks(nn.Sequential):
    """Holds the blocks of one place, in the order in which they run."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        # torch.ao quantises what has a configuration, and a block computes with floats.
        self.qconfig = None

    def forward(self, input: Tensor) -> Tensor:
        """Runs the blocks; in a traced network they are one node, so that they can be found."""
        if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript leaves out what this condition alone guards
            if isinstance(input, Proxy):
                return as_one_node(self, input)
        for block in self:
            input = block(input)
        return input


def as_one_node(blocks: nn.Module, input: Any) -> Any:
    """Returns the call of blocks as one node of the graph that `input` belongs to."""
    return input.tracer.create_proxy(
        "call_module", input.tracer.path_of_module(blocks), (input,), {}
    )


def apply_attention(self, input: Tuple[Tensor], output: Tensor) -> Tensor:  # noqa: UP006
    """Runs the blocks as a hook, at module level and typed for deepcopy, pickle and TorchScript."""
    if not torch.jit.is_scripting():  # noqa: SIM102  A proxy does not know what it stands for.
        if isinstance(output, Proxy):
            return self.attention(output)
    if output.is_quantized:
        return torch.quantize_per_tensor_dynamic(
            self.attention(output.dequantize()), output.dtype, False
        )
    return self.attention(output)


def is_place(module: nn.Module | None) -> bool:
    """Returns whether blocks hang on a module.

    Raises:
        UserError: If they hang on a scripted or traced module, which has lost their classes and
            arguments.
    """
    if isinstance(module, torch.jit.ScriptModule):
        if any(
            getattr(child, "original_name", "") == AttentionBlocks.__name__
            for child in module.children()
        ):
            raise UserError(
                "a scripted model does not know its attention: ask the model that it was made from"
            )
        return False
    blocks = None if module is None else module._modules.get("attention")
    return (
        module is not None
        and blocks is not None
        and (isinstance(blocks, AttentionBlocks) or is_hooked(module))
    )


def is_hooked(module: nn.Module) -> bool:
    """Returns whether a call of a module runs its blocks."""
    return apply_attention in module._forward_hooks.values()


def blocks_at(place: nn.Module) -> AttentionBlocks:
    """Returns the blocks that hang on a place, also if another tool has wrapped them.

    Raises:
        UserError: If that tool keeps several copies of them, or none.
    """
    attention = place.get_submodule("attention")
    found = [module for module in attention.modules() if isinstance(module, AttentionBlocks)]
    if len(found) != 1:
        raise UserError(
            f"cannot tell which attention counts: {attention._get_name()} holds {len(found)} copies"
            " of it; unwrap it first"
        )
    return found[0]


def places(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns the modules that have attention inserted, with their paths.

    Raises:
        UserError: If blocks stand elsewhere in the model.
    """
    found = [(path, module) for path, module in model.named_modules() if is_place(module)]
    hanging = {inner for _, place in found for inner in place.get_submodule("attention").modules()}
    for path, module in model.named_modules():
        if isinstance(module, AttentionBlocks) and module not in hanging:
            raise UserError(
                f"cannot tell where the attention at {path!r} belongs: ask the model as it was"
                " before a tool moved it there"
            )
    return found


def host_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields ``model.named_modules()`` without what was inserted."""
    inserted = {inner for _, place in places(model) for inner in blocks_at(place).modules()}
    return ((path, module) for path, module in model.named_modules() if module not in inserted)


def hang(blocks: AttentionBlocks, place: nn.Module) -> None:
    """Lets `blocks` work on what `place` returns, before any hook of the host sees it."""
    place.add_module("attention", blocks)
    place.register_forward_hook(apply_attention, prepend=True)
    to_place_class(place)


def unhang(place: nn.Module) -> None:
    """Gives `place` back as it was before :func:`hang`."""
    if is_hooked(place):
        unhook(place)
        del place.attention
        from_place_class(place)
    else:
        # The graph of a traced network goes on calling what is here.
        place.attention = nn.Identity()


def unhook(place: nn.Module) -> None:
    """Takes the hook alone off `place`."""
    for key in [key for key, hook in place._forward_hooks.items() if hook is apply_attention]:
        del place._forward_hooks[key]
