"""How a block hangs on a place: one forward hook that sends what the place returns through its child ``attention``."""

from collections.abc import Iterator
from typing import Tuple  # noqa: UP035  TorchScript reads this one, not tuple, in the signature of a hook

from torch import Tensor, nn


def apply_attention(self, input: Tuple[Tensor], output: Tensor) -> Tensor:  # noqa: UP006
    """The hook. At module level and typed, so that it survives deepcopy, pickle and TorchScript."""
    return self.attention(output)


def is_place(module: nn.Module) -> bool:
    return apply_attention in module._forward_hooks.values()


def blocks_at(place: nn.Module) -> nn.Sequential:
    """The blocks that hang on a place, in the order that they work in."""
    assert isinstance(place.attention, nn.Sequential)
    return place.attention


def places(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that have attention inserted, with their paths."""
    return [(path, module) for path, module in model.named_modules() if is_place(module)]


def host_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``model.named_modules()`` without what was inserted."""
    inserted = {inner for _, place in places(model) for inner in blocks_at(place).modules()}
    return ((path, module) for path, module in model.named_modules() if module not in inserted)


def attach(place: nn.Module, block: nn.Module) -> None:
    """Let `block` work on what `place` returns, after the blocks that are there already."""
    if is_place(place):
        blocks_at(place).append(block)
    else:
        place.add_module("attention", nn.Sequential(block).train(place.training))
        place.register_forward_hook(apply_attention)


def detach(place: nn.Module) -> None:
    """Give `place` back as it was before :func:`attach`."""
    for key in [key for key, hook in place._forward_hooks.items() if hook is apply_attention]:
        del place._forward_hooks[key]
    del place.attention
