"""Finds the trunk of a network, its blocks and its stages, from the data flow of a forward.

The *trunk* is what dominates the deepest feature: the tensors that lie on every path from the
images to it. Two neighbours on the trunk with parallel paths between them, which an addition or a
concatenation joins, are a *segment*. Its *block* is the innermost module that runs all of it.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import NamedTuple

from torch import nn

from cpsam.errors import UserError
from cpsam.insert.dataflow import ROOT, between, dominators
from cpsam.insert.deepest import deepest, with_strides
from cpsam.insert.hook import host_modules
from cpsam.insert.place_class import own_class
from cpsam.insert.probe import Probe, Span

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
        blocks: Paths of the blocks, in the order in which they run.
    """

    stride: int
    blocks: list[str]


def is_plain_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_collector(module: nn.Module) -> bool:
    """Returns whether a module is a container with a forward of its own."""
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
        end = deepest(self.nodes, self.strides, self.before)
        if end is None:
            why = self.reason("no tensor behind a convolution grows with the image")
            raise UserError(f"finds no trunk: {why}")
        chain = [end]
        while chain[-1] != ROOT:
            chain.append(self.before[chain[-1]])
        self.chain = chain[-2::-1]
        self.on_trunk = frozenset(self.chain)

    def reason(self, otherwise: str) -> str:
        if self.rescales:
            return "this model scales its images to one size: insert into its backbone alone"
        if not (failure := self.probe.failure):
            return otherwise
        advice = "pass example_input if it needs other inputs"
        return f"the forward of the model stopped early: {failure}; {advice}"

    def node(self, path: str) -> int | None:
        """Returns what the module of the host at `path` returned, if it was called once."""
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
                    self.runs(min(between(self.nodes, start, end)), end)
                )
        return found

    def runs(self, first: int, last: int) -> str:
        """Returns the innermost module that runs all operations from node `first` to `last`."""
        covering = [
            (span.start, path.count("."), path)
            for path, module in self.modules.items()
            if path in self.probe.visits and not is_plain_sequential(module)
            for span in self.probe.visits[path].spans
            if span.start <= first and last < span.end
        ]
        return max(covering, default=(0, 0, ""))[2]

    def element(self, path: str) -> str:
        """Returns the element of a container that holds the module at `path`, or the path itself.

        It is the element if several of its class follow each other at one stride, or if the module
        is a container that runs what it holds, because such a container is no place.
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
        """The classes that stand twice or more on the trunk, in one container at one stride."""
        places = [path for path in self.here if is_place(self.probe, path)]
        counts = Counter(
            (own_class(self.modules[path]), path.rpartition(".")[0], self.probe.stride(path))
            for path in places
        )
        return {kind for (kind, _, _), count in counts.items() if count > 1}

    @cached_property
    def blocks(self) -> list[str]:
        """The blocks in the order in which they run.

        They are the modules on the trunk that have the class of a segment's block, if there are at
        least two. A network without such segments has the elements of containers on the trunk whose
        class stands there at least twice. Elements with modules inside come first.
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
        """Returns those of the blocks that can be places.

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
        """Returns the blocks in the order in which they run.

        The layers of a dense block stand for it, because a container that runs what it holds is no
        place.
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
        """The runs of blocks at one stride, in the order in which they run.

        Where dilation replaces a stride, a stage begins where the width changes. It counts as the
        stride that is replaced.
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
    """Returns the paths that hold none of the others."""
    return [path for path in paths if not any(other.startswith(f"{path}.") for other in paths)]
