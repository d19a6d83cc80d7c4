"""Teaches torch.ao.quantization.fuse_modules what to do at a place; it finds rules by class."""

from collections.abc import Callable
from contextlib import suppress
from itertools import product

from torch import nn

from cpsam.errors import UserError
from cpsam.insert.hook import is_place, unhook
from cpsam.insert.place_class import from_place_class, place_class

Rule = Callable[..., nn.Module]


def with_places(rule: Rule) -> Rule:
    """Returns a rule that folds modules of which the last may be a place.

    The module that takes the slot of the place gets the blocks.
    """

    def fuse(is_qat: bool, *modules: nn.Module) -> nn.Module:
        *first, last = modules
        for module in filter(is_place, first):
            raise UserError(
                f"cannot fuse {module._get_name()} with what follows it: attention stands between;"
                " call remove_attention first"
            )
        unhook(last)
        from_place_class(last)
        return rule(is_qat, *modules)

    return fuse


def teach(rules: dict[tuple[type[nn.Module], ...], Rule]) -> None:
    """Adds the rules for the same classes as places."""
    for kinds, rule in list(rules.items()):
        for variant in product(*((kind, place_class(kind)) for kind in kinds)):
            rules.setdefault(variant, with_places(rule))


with suppress(ImportError):  # torch means to give up this package.
    from torch.ao.quantization.fuser_method_mappings import _DEFAULT_OP_LIST_TO_FUSER_METHOD

    teach(_DEFAULT_OP_LIST_TO_FUSER_METHOD)
