"""Runs a host on meta tensors to learn what each of its modules returns.

Nothing is computed, and no buffer changes.
"""

import math
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from cpsam.errors import UserError
from cpsam.insert.dataflow import DataFlow, Node
from cpsam.insert.inputs import GROWTH, PROBE_SIZES, Inputs, inputs_of
from cpsam.torch_state import call_on_meta, without_hooks


class Span(NamedTuple):
    """One call of a module: it made the nodes ``start`` to ``end - 1`` and returned ``node``."""

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
        """Returns the number of channels of what the module at `path` returns.

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
        """Returns the output stride at `path` in pixels, to the nearest power of two."""
        shapes = [calls[0] for calls in self.visits[path].outputs if calls]
        return nearest_stride(self.sizes, [(int(shape[2]), int(shape[3])) for shape in shapes])


def nearest_stride(sizes: Sequence[tuple[int, int]], features: Sequence[tuple[int, int]]) -> int:
    """Returns the pixels between two positions of feature maps, to the nearest power of two."""
    ratios = [
        side / max(length, 1)
        for size, feature in zip(sizes, features, strict=False)
        for side, length in zip(size, feature, strict=True)
    ]
    return 2 ** round(sum(map(math.log2, ratios)) / len(ratios))


def probe(model: nn.Module, example_input: Any = None) -> Probe:
    """Runs `model` on meta tensors of two sizes, and records what each module reads and returns.

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
