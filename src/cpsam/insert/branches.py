"""The branches of the blocks of a trunk: what runs beside a skip, and which module returns its end.

A *skip* is the addition that ends a segment of the trunk, or an addition inside a segment of which
one operand lies on every path to the other, as in the inner blocks of YOLO. A sum of equally long
paths is no skip.
"""

from functools import cached_property

from cpsam.errors import UserError
from cpsam.insert.dataflow import longest_paths
from cpsam.insert.place_class import own_class
from cpsam.insert.trunk import Segment, Trunk


class Branches:
    """The branches of all blocks of a trunk."""

    def __init__(self, trunk: Trunk) -> None:
        self.trunk = trunk
        self.length = longest_paths(trunk.nodes)

    def ends(self, block: str) -> list[str]:
        """Returns the end of the branch of each skip in a block; a block without one ends where its
        branch does.

        Raises:
            UserError: If no block of its class has a skip, or a branch does not return (N, C, H,
                W).
        """
        kind = own_class(self.trunk.modules[block])
        if not any(
            self.skips[other]
            for other in self.trunk.blocks
            if own_class(self.trunk.modules[other]) is kind
        ):
            joins = (
                ", because it joins its paths by concatenation alone"
                if self.trunk.concatenates(block)
                else ""
            )
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
        """Holds for each block the ends of the branches that its skips add to."""
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
        """Returns the outermost skips between parallel paths: additions of which one operand lies
        on every path to another.
        """
        found: list[Segment] = []
        covered: set[int] = set()
        for end in sorted(self.trunk.between(*segment), reverse=True):
            start = self.trunk.before[end]
            if (
                end not in covered
                and start in self.trunk.nodes[end].inputs
                and self.trunk.adds(end)
            ):
                found.append(Segment(start, end))
                covered |= self.trunk.between(start, end)
        return found[::-1]

    def branch_end(self, block: str, start: int, end: int) -> str | None:
        """Returns the last module on the longest of the paths that an addition joins, or None if
        two are equally long.
        """
        *_, second, longest = sorted(
            self.trunk.nodes[end].inputs, key=lambda index: self.length[index]
        )
        return (
            self.last_module(block, start, longest)
            if self.length[second] < self.length[longest]
            else None
        )

    def last_module(self, block: str, start: int, node: int | None) -> str | None:
        """Returns the outermost module in `block` that returns `node`, else the last before it on
        every path from `start`.
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
