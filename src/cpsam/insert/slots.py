"""Passes the blocks of a place to the module that another tool puts into its slot.

Tools that fold, freeze, convert or quantise norms replace them in ``parent._modules``. They do not
know what hangs on a norm.
"""

from collections.abc import Mapping, MutableMapping

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from cpsam.errors import UserError
from cpsam.insert.hook import blocks_at, hang, is_hooked, is_place, unhang

Modules = Mapping[str, nn.Module | None]


class Slots(dict[str, nn.Module | None]):
    """The ``_modules`` of a parent of places: the blocks of a place stay in its slot."""

    def __setitem__(self, name: str, new: nn.Module | None) -> None:
        hand_on(self, name, new)
        super().__setitem__(name, new)

    def __delitem__(self, name: str) -> None:
        hand_on(self, name, None)
        super().__delitem__(name)

    # The methods of dict do not call the two above.
    update = MutableMapping.update  # pyrefly: ignore [bad-override]
    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    clear = MutableMapping.clear
    setdefault = MutableMapping.setdefault


def hand_on(modules: Modules, name: str, new: nn.Module | None) -> None:
    """Passes the blocks in the slot `name`, if it has any, to the module that will take it.

    Raises:
        UserError: If that module cannot have them, or there is none.
    """
    old = modules.get(name)
    if old is None or old is new or not is_place(old) or stays(old, modules, name, new):
        return
    if new is None:
        raise UserError(
            f"cannot take {name!r} away: attention is inserted there; call remove_attention first,"
            " or insert at its parent"
        )
    blocks = blocks_at(old)
    own = new._modules.pop("attention", None)  # SyncBatchNorm takes over the children of a norm.
    if hasattr(new, "attention") or own not in (None, blocks):
        raise UserError(
            f"cannot put {new._get_name()} in the slot of {name!r}: it has an attribute 'attention'"
            " of its own"
        )
    unhang(old)
    hang(blocks, new)


def stays(place: nn.Module, modules: Modules, name: str, new: nn.Module | None) -> bool:
    """Returns whether a place stays in use: in another slot, or inside a module that wraps it."""
    if any(module is place for slot, module in modules.items() if slot != name):
        return True
    # LoRA adds to what the place returns, and later to its weights. Blocks come after both.
    if callable(getattr(new, "merge", None)):
        return False
    inside = [] if new is None else filter(is_hooked, new.modules())
    return any(module is place or type(module) is type(place) for module in inside)


def keep_in_slots(parent: nn.Module) -> None:
    """Lets the blocks of the places in `parent` stay in their slots."""
    if not isinstance(parent._modules, Slots):
        parent._modules = Slots(parent._modules)


def forget_slots(model: nn.Module) -> None:
    """Gives all modules a plain dict back."""
    for module in model.modules():
        if isinstance(module._modules, Slots):
            module._modules = dict(module._modules)


def on_registration(parent: nn.Module, name: str, new: nn.Module | None) -> None:
    """Passes the blocks on in a parent without :class:`Slots`, as torch.fx makes them."""
    if not isinstance(parent._modules, Slots):
        hand_on(parent._modules, name, new)


register_module_module_registration_hook(on_registration)
