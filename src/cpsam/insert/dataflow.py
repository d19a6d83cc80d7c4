"""Records which operation reads which tensor while a network runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = -1


class Node(NamedTuple):
    """One version of one tensor.

    Attributes:
        operation: The name of the ATen operation that made it, without the underscore of the
            in-place form.
        inputs: The indices of the tensor versions that the operation read; empty for an image.
        shape: The shape of the tensor; empty if it holds no floating-point numbers.
        dilation: The dilation of the convolution that made it, else 1.
        convolved: Whether a convolution lies between the images and the tensor.
    """

    operation: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    dilation: int
    convolved: bool


class DataFlow(TorchDispatchMode):
    """Lists the tensor versions that depend on the images, in the order in which they are made.

    An operation in place makes a new version of the tensor that it writes, and of each tensor that
    shares its memory and is read later.
    """

    def __init__(self, images: Sequence[Tensor]) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        # The tensor itself keeps its id from being reused; its version; the writes it has seen.
        self.versions: dict[int, tuple[Tensor, int | None, int]] = {}
        self.written: dict[int, list[int]] = {}  # by memory
        for image in images:
            self.update(image, self.add("image", (), image))

    def node(self, value: object) -> int | None:
        """Returns the present version of a tensor, if it depends on the images."""
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            return None
        written = self.written.get(memory(value), [])
        _, version, seen = self.versions.get(id(value), (value, None, 0))
        if seen < len(written):
            read = [at for at in dict.fromkeys((version, *written[seen:])) if at is not None]
            version = self.add("alias", tuple(read), value)
            self.update(value, version)
        return version

    def update(self, tensor: Tensor, version: int | None) -> None:
        self.versions[id(tensor)] = (tensor, version, len(self.written.get(memory(tensor), [])))

    def add(
        self, operation: str, inputs: tuple[int, ...], tensor: Tensor, dilation: int = 1
    ) -> int:
        convolved = operation == "convolution" or any(
            self.nodes[index].convolved for index in inputs
        )
        shape = tuple(tensor.shape) if tensor.is_floating_point() else ()
        self.nodes.append(Node(operation, inputs, shape, dilation, convolved))
        return len(self.nodes) - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        makes_constant = name.startswith("new_") or name.endswith("_like")
        read = (
            set()
            if makes_constant
            else {version for leaf in given if (version := self.node(leaf)) is not None}
        )
        inputs, dilation = tuple(sorted(read)), max(args[5]) if name == "convolution" else 1
        for tensor in writes(func, args, kwargs or {}) if read else ():
            version = self.add(name, inputs, tensor, dilation)
            self.written.setdefault(memory(tensor), []).append(version)
            self.update(tensor, version)
        # The second result of a norm is its statistics.
        for leaf in tree_leaves(out[0] if "norm" in name and isinstance(out, tuple) else out):
            if (
                isinstance(leaf, Tensor)
                and leaf.layout is torch.strided
                and not any(leaf is other for other in given)
            ):
                self.update(leaf, self.add(name, inputs, leaf, dilation) if read else None)
        return out


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def writes(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Returns the tensors that an operation writes in place."""
    if not func._schema.is_mutable:
        return []
    declared = func._schema.arguments
    given = {**dict(zip((each.name for each in declared), args, strict=False)), **kwargs}
    written = [
        given.get(each.name) for each in declared if each.alias_info and each.alias_info.is_write
    ]
    return [leaf for leaf in tree_leaves(written) if isinstance(leaf, Tensor)]


def dominators(nodes: Sequence[Node]) -> list[int]:
    """Returns for each node the last one before it on every path from the images, or ``ROOT``.

    Example:
        >>> diamond = [(), (0,), (0,), (1, 2), (3,)]
        >>> dominators([Node("", inputs, (), 1, False) for inputs in diamond])
        [-1, 0, 0, 0, 3]
    """
    before: list[int] = []
    for node in nodes:
        common = node.inputs[0] if node.inputs else ROOT
        for other in node.inputs[1:]:
            # The index of a node is larger than those of its dominators. So the later one steps
            # back until both meet.
            while common != other:
                if common > other:
                    common = before[common]
                else:
                    other = before[other]
        before.append(common)
    return before


def between(nodes: Sequence[Node], start: int, end: int) -> set[int]:
    """Returns the nodes on the paths from `start`, without it, to `end`."""
    seen, todo = set(), [end]
    while todo:
        index = todo.pop()
        if index != start and index not in seen:
            seen.add(index)
            todo += nodes[index].inputs
    return seen


def longest_paths(nodes: Sequence[Node]) -> list[int]:
    """Returns for each node the number of operations on the longest path to it."""
    lengths: list[int] = []
    for node in nodes:
        lengths.append(1 + max((lengths[index] for index in node.inputs), default=-1))
    return lengths
