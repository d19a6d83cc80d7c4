"""The trunk of a network: what everything that its deepest feature knows has passed, from the data
flow of a forward.

The *deepest feature* is the last tensor at the largest stride, before that stride is enlarged. The
*trunk* is what dominates it: the tensors that lie on every path from the images to it. Two
neighbours on the trunk with parallel paths between them, joined by an addition or a concatenation,
are a *segment*. Its *block* is the innermost module that runs all of it.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import NamedTuple

from torch import nn

from cpsam.errors import UserError
from cpsam.insert.dataflow import ROOT, Node, dominators
from cpsam.insert.hook import host_modules
from cpsam.insert.place_class import own_class
from cpsam.insert.probe import Probe, Span, nearest_stride

ADDITIONS = frozenset({"add", "addcmul"})
CONCATENATIONS = frozenset({"cat", "stack"})
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Segment(NamedTuple):
    """Parallel paths from the node `start` to the node `end`, which joins them."""

    start: int
    end: int


@dataclass(frozen=True)
class Stage:
    """A run of blocks at one stride.

    Attributes:
        stride: Output stride; where dilation replaces a stride, the stride that it replaces.
        blocks: Paths of the blocks, in the order that they run in.
    """

    stride: int
    blocks: list[str]


def is_plain_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_collector(module: nn.Module) -> bool:
    """Whether a module is a container with a forward of its own."""
    return isinstance(module, CONTAINERS) and not is_plain_sequential(module)


class Trunk:
    """The trunk of a host, its segments, blocks and stages.

    Raises:
        UserError: If there is none, with the reason.
    """

    def __init__(self, model: nn.Module, probe: Probe) -> None:
        self.probe = probe
        self.modules = {path: module for path, module in host_modules(model) if path}
        self.nodes, self.strides = with_strides(probe)
        self.before = dominators(self.nodes)
        chain = [self.deepest()]
        while chain[-1] != ROOT:
            chain.append(self.before[chain[-1]])
        self.chain = chain[-2::-1]
        self.on_trunk = frozenset(self.chain)

    def deepest(self) -> int:
        """The last feature map at the largest stride that nothing enlarged leads to, before that
        stride is enlarged.
        """
        gates = self.inside_gates()
        enlarged: list[bool] = []
        for index, node in enumerate(self.nodes):
            stride = self.strides.get(index, math.inf)
            read = [other for other in node.inputs if other not in gates]
            enlarged.append(
                index not in gates
                and any(enlarged[other] or self.strides.get(other, 0) > stride for other in read)
            )
        maps = {index: stride for index, stride in self.strides.items() if index not in gates}
        kept = {index: stride for index, stride in maps.items() if not enlarged[index]}
        if not kept:
            raise UserError(
                "finds no trunk:"
                f" {self.reason('no tensor behind a convolution grows with the image')}"
            )
        largest = max(kept.values())
        if max(maps.values()) > largest:
            raise UserError(
                "finds no trunk: this model keeps several resolutions side by side, and reaches its"
                " largest stride after an upsampling"
            )
        # A neck may go on with the deepest map after it has enlarged it.
        coarse = {index for index, stride in kept.items() if stride == largest}
        end = next(
            (
                index
                for index, node in enumerate(self.nodes)
                if enlarged[index] and not coarse.isdisjoint(node.inputs)
            ),
            math.inf,
        )
        return max(index for index in coarse if index < end)

    def inside_gates(self) -> set[int]:
        """What features are multiplied by, computed from them at a larger stride and used for
        nothing else.
        """
        readers: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for other in node.inputs if node.shape else ():
                readers.setdefault(other, []).append(index)
        inside: set[int] = set()
        for index, stride in self.strides.items():
            start, node = self.before[index], self.nodes[index]
            if node.operation == "mul" and len(node.inputs) > 1 and start in self.strides:
                coarse = [
                    any(self.strides.get(at, 0) > stride for at in self.between(start, other))
                    for other in node.inputs
                ]
                paths = self.between(start, index)
                closed = all(
                    reader in paths
                    for other in paths - {index}
                    for reader in readers.get(other, [])
                )
                if any(coarse) and not all(coarse) and closed:
                    inside |= paths - {index}
        return inside

    def reason(self, otherwise: str) -> str:
        if self.rescales:
            return "this model scales its images to one size: insert into its backbone alone"
        failure = self.probe.failure
        return (
            f"the forward of the model stopped early: {failure}; pass example_input if it needs"
            " other inputs"
            if failure
            else otherwise
        )

    def node(self, path: str) -> int | None:
        """What the module of the host at `path` returned, if it was called once."""
        visit = self.probe.visits.get(path) if path in self.modules else None
        return visit.spans[0].node if visit is not None and len(visit.spans) == 1 else None

    def span(self, path: str) -> Span:
        return self.probe.visits[path].spans[0]

    @property
    def rescales(self) -> bool:
        """Whether the host scales its images before its first convolution."""
        return any(
            node.operation.lstrip("_").startswith(("upsample", "grid_sampler"))
            and not node.convolved
            for node in self.nodes
        )

    @cached_property
    def segments(self) -> dict[Segment, str]:
        """The segments with the paths of their blocks, in order; ``""`` is the whole network."""
        found = {}
        for start, end in pairwise(self.chain):
            node = self.nodes[end]
            if len(node.inputs) > 1 and node.operation in ADDITIONS | CONCATENATIONS:
                found[Segment(start, end)] = self.element(
                    self.runs(min(self.between(start, end)), end)
                )
        return found

    def between(self, start: int, end: int) -> set[int]:
        """The nodes on the paths from `start`, without it, to `end`."""
        seen, todo = set(), [end]
        while todo:
            index = todo.pop()
            if index != start and index not in seen:
                seen.add(index)
                todo += self.nodes[index].inputs
        return seen

    def runs(self, first: int, last: int) -> str:
        """The innermost module that runs the operations from the node `first` to the node
        `last`.
        """
        covering = [
            (span.start, path.count("."), path)
            for path, module in self.modules.items()
            if path in self.probe.visits and not is_plain_sequential(module)
            for span in self.probe.visits[path].spans
            if span.start <= first and last < span.end
        ]
        return max(covering, default=(0, 0, ""))[2]

    def element(self, path: str) -> str:
        """The element of a container that the module at `path` lies in, if several of its class
        follow each other at one stride.

        Also if the module is a container that runs what it holds, which is no place.
        """
        around = path
        while around and not self.is_element(around):
            around = around.rpartition(".")[0]
        wanted = bool(around) and (
            is_collector(self.modules[path]) or own_class(self.modules[around]) in self.repeated
        )
        return around if wanted else path

    def is_element(self, path: str) -> bool:
        return isinstance(self.modules.get(path.rpartition(".")[0]), CONTAINERS)

    @cached_property
    def here(self) -> list[str]:
        """The modules that return what lies on the trunk."""
        return [path for path in self.probe.visits if self.node(path) in self.on_trunk]

    @cached_property
    def repeated(self) -> set[type[nn.Module]]:
        """The classes that stand at least twice on the trunk in one container at one stride; a
        class of stages does not.
        """
        places = [path for path in self.here if is_place(self.probe, path)]
        counts = Counter(
            (own_class(self.modules[path]), path.rpartition(".")[0], self.probe.stride(path))
            for path in places
        )
        return {kind for (kind, _, _), count in counts.items() if count > 1}

    @cached_property
    def blocks(self) -> list[str]:
        """The blocks in the order that they run in: modules on the trunk of the class of a
        segment's block, if there are at least two.

        In a network without such segments they are the elements of containers on the trunk whose
        class stands there at least twice: those with modules inside, if there are such.
        """
        joined = [path for path in dict.fromkeys(self.segments.values()) if path]
        kinds = {own_class(self.modules[path]) for path in joined}
        parents = {path.rpartition(".")[0] for path in self.modules}
        elements = [
            path
            for path in self.here
            if self.is_element(path) and not is_plain_sequential(self.modules[path])
        ]
        for candidates in (
            list(
                dict.fromkeys(
                    self.element(path)
                    for path in [*self.here, *joined]
                    if own_class(self.modules[path]) in kinds
                )
            ),
            [path for path in elements if path in parents],
            elements,
        ):
            counts = Counter(own_class(self.modules[path]) for path in candidates)
            blocks = innermost(
                [path for path in candidates if counts[own_class(self.modules[path])] > 1]
            )
            if blocks:
                return self.ordered(self.places(blocks))
        if self.probe.failure:
            raise UserError(f"finds no blocks: {self.reason('')}")
        raise UserError(
            "needs at least two stages of blocks; this model has 0: no class of modules returns"
            " what lies on its trunk twice"
        )

    def places(self, blocks: list[str]) -> list[str]:
        """Those of the blocks that can be places.

        Raises:
            UserError: If none can, or the forward stopped between them.
        """
        within = [
            f"{path}." for path, module in self.modules.items() if isinstance(module, CONTAINERS)
        ]
        within = [prefix for prefix in within if any(block.startswith(prefix) for block in blocks)]
        if self.probe.failure and any(
            isinstance(module, nn.Conv2d)
            and path not in self.probe.visits
            and path.startswith(tuple(within))
            for path, module in self.modules.items()
        ):
            raise UserError(f"finds no whole trunk: {self.reason('')}")
        places = [path for path in blocks if path in self.here and is_place(self.probe, path)]
        if not places:
            self.probe.channels(blocks[0])
        elements = [path for path in places if self.is_element(path)]
        # Beside many blocks in containers, a single one outside is a stem or a last layer.
        return elements if len(elements) > len(places) / 2 else places

    def ordered(self, blocks: list[str]) -> list[str]:
        """The blocks as they run; the layers of a dense block stand for it, because a container
        that runs what it holds is no place.
        """
        layers = []
        for path in sorted(blocks, key=lambda path: self.probe.visits[path].order):
            module = self.modules[path]
            dense = is_collector(module) and self.concatenates(path)
            inner = [f"{path}.{name}" for name, _ in module.named_children()] if dense else []
            layers += [at for at in inner if is_place(self.probe, at)] or [path]
        return layers

    @cached_property
    def stages(self) -> list[Stage]:
        """Runs of blocks at one stride, in the order that they run in.

        Where a stride is replaced by dilation, a stage begins where the width changes, and counts
        as the stride that is replaced.
        """

        def size(path: str) -> tuple[int, int]:
            return self.probe.stride(path), self.probe.channels(path)

        stages: list[Stage] = []
        real = dilation = factor = 1
        for (stride, _), run in groupby(self.blocks, key=size):
            blocks = list(run)
            widest = max(self.dilation(path) for path in blocks)
            if stages and stride == real and widest <= dilation:
                stages[-1].blocks.extend(blocks)
                continue
            factor *= 2 if stages and stride == real else 1
            real, dilation = stride, widest
            stages.append(Stage(stride * factor, blocks))
        return stages

    def dilation(self, path: str) -> int:
        span = self.span(path)
        return max((node.dilation for node in self.nodes[span.start : span.end]), default=1)

    def in_block(self, block: str) -> list[Segment]:
        return [segment for segment, path in self.segments.items() if path == block]

    def adds(self, index: int) -> bool:
        return self.nodes[index].operation in ADDITIONS and len(self.nodes[index].inputs) > 1

    def concatenates(self, block: str) -> bool:
        return any(self.nodes[end].operation in CONCATENATIONS for _, end in self.in_block(block))


def is_place(probe: Probe, path: str) -> bool:
    try:
        return probe.channels(path) > 0
    except UserError:
        return False


def innermost(paths: list[str]) -> list[str]:
    """The paths that hold none of the others."""
    return [path for path in paths if not any(other.startswith(f"{path}.") for other in paths)]


def with_strides(probe: Probe) -> tuple[list[Node], dict[int, int]]:
    """The nodes of the first forward, as far as both forwards go alike behind their first
    convolution, and the strides of feature maps.

    A feature map is a tensor with two axes that grow with the image.
    """
    first, second = (
        [(index, node) for index, node in enumerate(flow) if node.convolved] for flow in probe.flows
    )
    strides: dict[int, int] = {}
    for (index, one), (_, other) in zip(first, second, strict=False):
        if one.operation != other.operation:
            return probe.flows[0][:index], strides
        grown = [
            axis
            for axis in (1, 2, 3)
            if len(one.shape) == len(other.shape) == 4 and one.shape[axis] != other.shape[axis]
        ]
        if one.operation.endswith(("pad", "pad_nd", "pad2d")) and one.inputs[0] in strides:
            # A border makes a small map larger, and its positions no denser.
            strides[index] = strides[one.inputs[0]]
        elif len(grown) == 2:
            strides[index] = nearest_stride(
                probe.sizes, [(node.shape[grown[0]], node.shape[grown[1]]) for node in (one, other)]
            )
    return probe.flows[0][: first[len(second)][0] if len(second) < len(first) else None], strides
