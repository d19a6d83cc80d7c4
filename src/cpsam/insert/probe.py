"""Run a host on meta tensors to learn what each of its modules returns; nothing is computed and no
buffer moves.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves, tree_map_only

from cpsam.errors import CpsamError, UserError
from cpsam.insert.dataflow import DataFlow, Node
from cpsam.torch_state import call_on_meta, without_hooks

# H != W, and no axis of one size repeats in the other, down to a stride of 32.
PROBE_SIZES = ((128, 160), (192, 96))
# From an example to its second size. Multiples of 32, so that a size that fits all strides still
# does.
GROWTH = (32, 96)


class Span(NamedTuple):
    """The tensor versions that one call of a module made: nodes ``start`` to ``end - 1``; it
    returned ``node``.
    """

    start: int
    end: int
    node: int | None


@dataclass
class Visit:
    """What one module did in the forward of each size.

    Attributes:
        order: Position among all modules in the order of finishing.
        outputs: For each size, one entry per call: the shape of the tensor, or the name of the type
            that is no tensor.
        spans: One per call, in the first size.
    """

    order: int
    outputs: list[list[tuple[int, ...] | str]] = field(default_factory=lambda: [[], []])
    spans: list[Span] = field(default_factory=list)

    @property
    def times(self) -> int:
        return max(len(calls) for calls in self.outputs)


@dataclass(frozen=True)
class Probe:
    """What two forwards of a host showed.

    Attributes:
        visits: Of each module that was called, by its path.
        sizes: Of the images, (H, W).
        failure: The error that ended a forward early, if one did.
        images: Arguments of the first forward, by position and by name.
        flows: The data flow of each forward.
    """

    visits: dict[str, Visit]
    sizes: list[tuple[int, int]]
    failure: str
    images: "Inputs"
    flows: tuple[list[Node], list[Node]]

    def channels(self, path: str) -> int:
        """The number of channels that the module at `path` returns.

        Raises:
            UserError: If attention has no single (N, C, H, W) output to work on there.
        """
        visit = self.visits.get(path)
        if visit is None or visit.times == 0:
            reason = (
                f"the forward of the model stopped before it: {self.failure}"
                if self.failure
                else "it is never called in a forward"
            )
            raise UserError(f"cannot insert at {path!r}: {reason}")
        if visit.times > 1:
            raise UserError(
                f"cannot insert at {path!r}: it is called {visit.times} times in a forward, so that"
                " one block would serve all"
            )
        shapes = [calls[0] for calls in visit.outputs if calls]
        for shape in shapes:
            if isinstance(shape, str):
                raise UserError(f"cannot insert at {path!r}: it returns a {shape}, not one tensor")
            if len(shape) != 4:
                raise UserError(
                    f"cannot insert at {path!r}: it returns {len(shape)} axes {shape}, not (N, C,"
                    " H, W)"
                )
        if len(shapes) < 2:
            raise UserError(
                f"cannot insert at {path!r}: its channel axis is unclear, because a second image"
                f" size failed: {self.failure}"
            )
        fixed = [axis for axis in (1, 2, 3) if shapes[0][axis] == shapes[1][axis]]
        if fixed == [3]:
            raise UserError(
                f"cannot insert at {path!r}: its channels are the last axis, {shapes[0]}, and"
                " attention reads (N, C, H, W)"
            )
        if fixed != [1]:
            raise UserError(
                f"cannot insert at {path!r}: its channel axis is unclear, {shapes[0]} and"
                f" {shapes[1]} for images {self.sizes}"
            )
        return int(shapes[0][1])

    def stride(self, path: str) -> int:
        """How many pixels lie between two positions of the output at `path`, to the nearest power
        of two.
        """
        shapes = [calls[0] for calls in self.visits[path].outputs if calls]
        return nearest_stride(self.sizes, [(int(shape[2]), int(shape[3])) for shape in shapes])


def nearest_stride(sizes: Sequence[tuple[int, int]], features: Sequence[tuple[int, int]]) -> int:
    """How many pixels lie between two positions of feature maps, to the nearest power of two."""
    ratios = [
        side / max(length, 1)
        for size, feature in zip(sizes, features, strict=False)
        for side, length in zip(size, feature, strict=True)
    ]
    return 2 ** round(sum(map(math.log2, ratios)) / len(ratios))


class Inputs(NamedTuple):
    """What a forward takes. Its images are the tensors of four axes, wherever they are."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def images(self) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(tuple(self)) if is_image(leaf)]

    def resized(self, size: tuple[int, int]) -> "Inputs":
        """The same with images of `size`, or in proportion if they have several sizes."""
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
    """The arguments of the forward, on the meta device, from an example or guessed from the first
    convolution.
    """
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


def probe(model: nn.Module, example_input: Any = None) -> Probe:
    """Runs `model` on meta tensors of two sizes and records what each module returns, and from
    what.

    A forward that fails late, say in a classifier made for one image size, still tells about the
    modules before. Inserted blocks and the host's own hooks do not run.

    Args:
        model: The host. Its parameters, buffers and modes are left as they are.
        example_input: Images (N, C, H, W) that fit the model, or a tuple or dict of arguments that
            holds images; the second size is made from it. Default: sizes of our own, and the
            channels of the first convolution, or three where no convolution can read those.
    """
    first = inputs_of(model, example_input)
    if example_input is not None:
        height, width = first.images()[0].shape[2:]
        return record(model, first, (height + GROWTH[0], width + GROWTH[1]))
    seen = record(model, first, PROBE_SIZES[1])
    if reaches_a_convolution(model, seen):
        return seen
    # The first convolution does not read the images, because the stem folds pixels into channels,
    # say.
    image = first.images()[0]
    colour = record(
        model, Inputs((image.new_empty(len(image), 3, *image.shape[2:]),), {}), PROBE_SIZES[1]
    )
    return colour if reaches_a_convolution(model, colour) else seen


def reaches_a_convolution(model: nn.Module, seen: Probe) -> bool:
    return not seen.failure or any(
        isinstance(model.get_submodule(path), nn.Conv2d) for path in seen.visits
    )


def record(model: nn.Module, first: Inputs, second_size: tuple[int, int]) -> Probe:
    """Runs `model` on `first`, and again with images of `second_size`."""
    height, width = first.images()[0].shape[2:]
    sizes = [(height, width), second_size]
    paths = {module: path for path, module in model.named_modules()}
    visits: dict[str, Visit] = {}
    flows = []
    failure = ""
    thread = threading.get_ident()
    for index, inputs in enumerate((first, first.resized(sizes[1]))):
        flow = DataFlow(inputs.images())
        entered: list[tuple[nn.Module, int]] = []

        def enter(
            module: nn.Module,
            _: Any,
            flow: DataFlow = flow,
            entered: list[tuple[nn.Module, int]] = entered,
        ) -> None:
            if threading.get_ident() == thread:  # Global hooks hear other threads, too.
                entered.append((module, len(flow.nodes)))

        def leave(
            module: nn.Module,
            _: Any,
            output: Any,
            index: int = index,
            flow: DataFlow = flow,
            entered: Any = entered,
        ) -> None:
            if threading.get_ident() != thread:
                return
            start = next(
                entered.pop()[1] for opened in reversed(entered.copy()) if opened[0] is module
            )
            if (path := paths.get(module)) is not None:
                visit = visits.setdefault(path, Visit(order=len(visits)))
                visit.outputs[index].append(
                    tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                )
                if index == 0:
                    visit.spans.append(Span(start, len(flow.nodes), flow.node(output)))

        with ExitStack() as stack:
            stack.enter_context(without_hooks(model, keep=("torch.nn.utils.",)))
            for handle in (
                register_module_forward_pre_hook(enter),
                register_module_forward_hook(leave),
            ):
                stack.callback(handle.remove)
            try:
                with flow:
                    call_on_meta(model, *inputs.args, **inputs.kwargs)
            # A host may fail in any way; what it did before still counts.
            except Exception as error:
                failure = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        flows.append(flow.nodes)
    return Probe(visits, sizes, failure, first, (flows[0], flows[1]))


class Bystander(nn.Module):
    """A child that is there and must not be called."""

    def __init__(self, path: str, place: nn.Module) -> None:
        super().__init__()
        self.message = (
            f"cannot insert at {path!r}: {type(place).__name__} calls every module that it holds,"
            " and would call the block, too"
        )

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(self.message)


def refuse_collectors(model: nn.Module, places: Mapping[str, nn.Module], images: Inputs) -> None:
    """Refuse places that run whatever they hold, as a container that goes through its children
    does: a block would run inside them, too.

    Raises:
        UserError: If a child that is new in one of `places` is called.
    """
    if not places:
        return
    for path, place in places.items():
        place.add_module("attention", Bystander(path, place))
    try:
        call_on_meta(model, *images.args, **images.kwargs)
    except CpsamError:
        raise
    except Exception:  # The host fails late, as it did when it was probed.
        return
    finally:
        for place in places.values():
            del place.attention
