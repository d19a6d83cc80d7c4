"""Finds the branches of the blocks of a trunk: what runs beside a skip, and where it ends.

A *skip* is the addition that ends a segment of the trunk. It is also an addition inside a segment
of which one operand lies on every path to the other, as in the inner blocks of YOLO. A sum of
equally long paths is no skip.
"""

from functools import cached_property

from cpsam.errors import UserError
from cpsam.insert.dataflow import between, longest_paths
from cpsam.insert.place_class import own_class
from cpsam.insert.trunk import Segment, Trunk


class Branches:
    """The branches of all blocks of a trunk."""

    def __init__(self, trunk: Trunk) -> None:
        self.trunk = trunk
        self.length = longest_paths(trunk.nodes)

    def ends(self, block: str) -> list[str]:
        """Returns the end of the branch of each skip in a block.

        A block without a skip ends where its branch does.

        Raises:
            UserError: If no block of its class has a skip, or a branch returns other than
                (N, C, H, W).
        """
        kind, modules = own_class(self.trunk.modules[block]), self.trunk.modules
        alike = [other for other in self.trunk.blocks if own_class(modules[other]) is kind]
        if not any(self.skips[other] for other in alike):
            why = ", because it joins its paths by concatenation alone"
            joins = why if self.trunk.concatenates(block) else ""
            raise UserError(
                f"finds no branch in {block!r}: it adds nothing to what it was given{joins}"
            )
        span = self.trunk.span(block)
        ends = self.skips[block] or [self.last_module(block, span.start - 1, span.node) or block]
        for path in ends:
            self.trunk.probe.channels(path)
        return ends

    @cached_property
    def skips(self) -> dict[str, list[str]]:
        """The ends of the branches that the skips of each block add to, by its path."""
        return {
            block: [
                path
                for segment in self.trunk.in_block(block)
                for start, end in (
                    [segment] if self.trunk.adds(segment.end) else self.inner_skips(segment)
                )
                if (path := self.branch_end(block, start, end))
            ]
            for block in self.trunk.blocks
        }

    def inner_skips(self, segment: Segment) -> list[Segment]:
        """Returns the outermost skips inside a segment."""
        found: list[Segment] = []
        covered: set[int] = set()
        for end in sorted(between(self.trunk.nodes, *segment), reverse=True):
            start = self.trunk.before[end]
            if (
                end not in covered
                and start in self.trunk.nodes[end].inputs
                and self.trunk.adds(end)
            ):
                found.append(Segment(start, end))
                covered |= between(self.trunk.nodes, start, end)
        return found[::-1]

    def branch_end(self, block: str, start: int, end: int) -> str | None:
        """Returns the last module on the longest path that an addition joins; None for a tie."""
        *_, second, longest = sorted(self.trunk.nodes[end].inputs, key=self.length.__getitem__)
        if self.length[second] == self.length[longest]:
            return None
        return self.last_module(block, start, longest)

    def last_module(self, block: str, start: int, node: int | None) -> str | None:
        """Returns the outermost module in `block` that returns `node`.

        If there is none, it returns the last one before it that lies on every path from `start`.
        """
        assert node is not None
        while node > start:
            returning = [
                path
                for path in self.trunk.probe.visits
                if path.startswith(f"{block}.") and self.trunk.node(path) == node
            ]
            # The first one and what holds it; an nn.Identity behind it returns the same.
            if returning:
                return min(
                    (path for path in returning if f"{returning[0]}.".startswith(f"{path}.")),
                    key=len,
                )
            node = self.trunk.before[node]
        return None
