"""Finds the deepest feature: the last tensor at the largest stride, before any upsampling."""

import math
from collections.abc import Mapping, Sequence

from cpsam.errors import UserError
from cpsam.insert.dataflow import Node, between
from cpsam.insert.probe import Probe, nearest_stride


def with_strides(probe: Probe) -> tuple[list[Node], dict[int, int]]:
    """Returns the nodes of the first forward, and the strides of its feature maps.

    The nodes end where the two forwards differ behind their first convolution. A feature map is a
    tensor with two axes that grow with the image.
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


def deepest(nodes: Sequence[Node], strides: Mapping[int, int], before: Sequence[int]) -> int | None:
    """Returns the last feature map at the largest stride, before that stride is enlarged.

    No enlarged map leads to it. Returns None if there is no feature map.

    Args:
        nodes: The data flow.
        strides: The stride of each feature map.
        before: The dominator of each node.

    Raises:
        UserError: If the network keeps several resolutions side by side.
    """
    gates = inside_gates(nodes, strides, before)
    enlarged: list[bool] = []
    for index, node in enumerate(nodes):
        stride = strides.get(index, math.inf)
        read = [other for other in node.inputs if other not in gates]
        larger = any(enlarged[other] or strides.get(other, 0) > stride for other in read)
        enlarged.append(index not in gates and larger)
    maps = {index: stride for index, stride in strides.items() if index not in gates}
    kept = {index: stride for index, stride in maps.items() if not enlarged[index]}
    if not kept:
        return None
    largest = max(kept.values())
    if max(maps.values()) > largest:
        raise UserError(
            "finds no trunk: this model keeps several resolutions side by side, and reaches its"
            " largest stride after an upsampling"
        )
    # A neck may go on with the deepest map after it has enlarged it.
    coarse = {index for index, stride in kept.items() if stride == largest}
    readers = (
        index
        for index, node in enumerate(nodes)
        if enlarged[index] and not coarse.isdisjoint(node.inputs)
    )
    end = next(readers, math.inf)
    return max(index for index in coarse if index < end)


def inside_gates(
    nodes: Sequence[Node], strides: Mapping[int, int], before: Sequence[int]
) -> set[int]:
    """Returns the nodes inside gates.

    A gate multiplies features, is computed from them at a larger stride, and serves nothing else.
    """
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for other in node.inputs if node.shape else ():
            readers.setdefault(other, []).append(index)
    inside: set[int] = set()
    for index, stride in strides.items():
        start, node = before[index], nodes[index]
        if node.operation == "mul" and len(node.inputs) > 1 and start in strides:
            coarse = [
                any(strides.get(at, 0) > stride for at in between(nodes, start, other))
                for other in node.inputs
            ]
            paths = between(nodes, start, index)
            closed = all(
                reader in paths for other in paths - {index} for reader in readers.get(other, [])
            )
            if any(coarse) and not all(coarse) and closed:
                inside |= paths - {index}
    return inside
