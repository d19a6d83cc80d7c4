"""How a block hangs on a place: one forward hook that sends what the place returns through its child ``attention``."""

from collections.abc import Iterator
from typing import Any, Tuple  # noqa: UP035  TorchScript reads this one, not tuple, in the signature of a hook

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from cpsam.insert.place_class import from_place_class, to_place_class


class AttentionBlocks(nn.Sequential):
    """The blocks of one place, in the order that they work in."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.qconfig = None  # torch.ao quantises what has a configuration, and a block computes in floats


def apply_attention(self, input: Tuple[Tensor], output: Tensor) -> Tensor:  # noqa: UP006
    """The hook. At module level and typed, so that it survives deepcopy, pickle and TorchScript."""
    if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript leaves out what this condition alone guards
        if isinstance(output, Proxy):
            return as_one_node(self.attention, output)
    if output.is_quantized:
        return torch.quantize_per_tensor_dynamic(self.attention(output.dequantize()), output.dtype, False)
    return self.attention(output)


def as_one_node(blocks: nn.Module, output: Any) -> Any:
    """Calls the blocks of a place as one node of a traced network, which still knows them as blocks then."""
    return output.tracer.create_proxy("call_module", output.tracer.path_of_module(blocks), (output,), {})


def is_place(module: nn.Module | None) -> bool:
    """Returns whether blocks hang on a module."""
    return module is not None and isinstance(module._modules.get("attention"), AttentionBlocks)


def is_hooked(module: nn.Module) -> bool:
    """Returns whether a call of a module runs its blocks."""
    return apply_attention in module._forward_hooks.values()


def blocks_at(place: nn.Module) -> AttentionBlocks:
    """Returns the blocks that hang on a place, in the order that they work in."""
    assert isinstance(place.attention, AttentionBlocks)
    return place.attention


def places(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns the modules that have attention inserted, with their paths."""
    return [(path, module) for path, module in model.named_modules() if is_place(module)]


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
        place.attention = nn.Identity()  # The graph of a traced network goes on calling what is here.


def unhook(place: nn.Module) -> None:
    """Takes the hook alone off `place`."""
    for key in [key for key, hook in place._forward_hooks.items() if hook is apply_attention]:
        del place._forward_hooks[key]
