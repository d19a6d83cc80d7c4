"""Finds what the forward of a host takes: from an example, or from its first convolution."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from cpsam.errors import UserError

Example = Tensor | Sequence[Any] | Mapping[str, Any]
"""Images (N, C, H, W); several arguments are a tuple, or a dict by name."""

# H != W, and no axis of one size repeats in the other, down to a stride of 32.
PROBE_SIZES = ((128, 160), (192, 96))
# From an example to its second size: multiples of 32, so that it still fits all strides.
GROWTH = (32, 96)


class Inputs(NamedTuple):
    """The arguments of a forward. Its images are the tensors of four axes, wherever they are."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def images(self) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(tuple(self)) if is_image(leaf)]

    def resized(self, size: tuple[int, int]) -> "Inputs":
        """Returns the same with images of `size`, or in proportion if they have several sizes."""
        first = self.images()[0]
        height, width = (new / old for new, old in zip(size, first.shape[2:], strict=True))

        def resize(leaf: Tensor) -> Tensor:
            if not is_image(leaf):
                return leaf
            return leaf.new_empty(
                (*leaf.shape[:2], round(leaf.shape[2] * height), round(leaf.shape[3] * width))
            )

        return Inputs(*tree_map_only(Tensor, resize, tuple(self)))


def is_image(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4


def inputs_of(model: nn.Module, example: Any) -> Inputs:
    """Returns arguments of the forward on the meta device, from an example or by a guess."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if example is None:
        return Inputs(
            (torch.empty(2, image_channels(model), *PROBE_SIZES[0], device="meta", dtype=dtype),),
            {},
        )
    if isinstance(example, Tensor) and is_image(example):
        return Inputs((torch.empty(2, *example.shape[1:], device="meta", dtype=dtype),), {})
    leaves = tree_leaves(example)
    if not any(map(is_image, leaves)):
        given = (
            f"the shape {tuple(example.shape)}"
            if isinstance(example, Tensor)
            else type(example).__name__
        )
        other = any(isinstance(leaf, Tensor) and leaf.dim() in (3, 5) for leaf in leaves)
        raise UserError(
            "example_input must be images (N, C, H, W); got"
            f" {given}{', and attention is for 2-D networks only' if other else ''}"
        )

    def on_meta(leaf: Tensor) -> Tensor:
        return torch.empty_like(
            leaf, device="meta", dtype=dtype if leaf.is_floating_point() else leaf.dtype
        )

    args, kwargs = tree_map_only(
        Tensor,
        on_meta,
        ((), dict(example)) if isinstance(example, Mapping) else (tuple(example), {}),
    )
    return Inputs(args, kwargs)


def image_channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv3d)):
            raise UserError(
                f"attention is for 2-D networks only: {type(model).__name__} has"
                f" {type(module).__name__} and no Conv2d"
            )
    raise UserError(
        "cannot tell how many channels the images have, because the model has no Conv2d: pass"
        " example_input"
    )
