"""Gives a place that is one operation to torch.fx a subclass of its class.

The hook of such a place is not in a traced graph, so a tool that folds the graph would not see the
block. Tools that fold by exact class leave the subclass alone.
"""

from typing import Any

from torch import nn

SUFFIX = "Place"


def place_class(kind: type[nn.Module]) -> Any:
    """Returns the subclass that a place of a class of ``torch.nn`` has."""
    return globals().setdefault(
        kind.__name__ + SUFFIX, type(kind.__name__ + SUFFIX, (kind,), {"__module__": __name__})
    )


def __getattr__(name: str) -> Any:
    """Makes a class that pickle asks for and that this process has not made yet."""
    kind = getattr(nn, name.removesuffix(SUFFIX), None)
    if name.endswith(SUFFIX) and isinstance(kind, type) and issubclass(kind, nn.Module):
        return place_class(kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def own_class(module: nn.Module) -> type[nn.Module]:
    """Returns the class that the host gave to a module."""
    kind = type(module)
    return kind.__bases__[0] if kind.__module__ == __name__ else kind


def to_place_class(module: nn.Module) -> None:
    """Changes the class of a module that is exactly one of ``torch.nn``.

    torch.fx still treats it as one operation.
    """
    kind = type(module)
    if getattr(nn, kind.__name__, None) is kind and not isinstance(module, nn.Sequential):
        module.__class__ = place_class(kind)
        module.__dict__["__module__"] = kind.__module__


def from_place_class(module: nn.Module) -> None:
    """Gives a module its own class back."""
    if own_class(module) is not type(module):
        module.__class__ = own_class(module)
        del module.__dict__["__module__"]
