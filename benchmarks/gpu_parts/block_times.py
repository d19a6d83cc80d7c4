"""How long the blocks take, eager and compiled, against their bare convolutions and each other."""

import time
from collections.abc import Callable
from typing import Any

import torch
from blocks import forward, training
from compared_blocks import DTYPES, FORMATS, awaken, blocks
from torch import nn

from gpu_parts.interleaved import ratios, spread, time_in_turn
from gpu_parts.sizes import Shape, Sizes

BARE = {
    "cpsam:grouped": "bare:depthwise",
    "cpsam:depthwise": "bare:depthwise",
    "cpsam:sum": "bare:sum",
    "cpsam:concat": "bare:sum",
}
# The most important ones first, each pair together: compilation may end early.
NAMES = (
    "cpsam:grouped",
    "bare:depthwise",
    "cpsam:depthwise",
    "bare:sum",
    "cpsam:sum",
    "cpsam:concat",
    "non_local",
    "global_context",
    "squeeze_excite",
)
PAIRS = [*BARE.items(), ("non_local", "cpsam:grouped"), ("non_local", "cpsam:depthwise")]
MODES = ("training", "forward")
COMPILATION = 60  # seconds per part, at most, and half of those that are left


def measure(
    left: float,
    *,
    sizes: Sizes,
    device: str,
    shape: Shape,
    dtype: str,
    memory_format: str,
    compiled: bool,
) -> dict[str, Any]:
    """Returns milliseconds per call of each block, and ratios, for forward and for training.

    Compilation ends after some seconds. Blocks that were not compiled until then are named.
    """
    torch.manual_seed(0)
    x, dy = (
        torch.randn(shape, device=device, dtype=DTYPES[dtype]).contiguous(
            memory_format=FORMATS[memory_format]
        )
        for _ in range(2)
    )
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_(True)
    known, end = blocks(), time.perf_counter() + min(left / 2, COMPILATION)
    made: dict[str, nn.Module] = {
        name: awaken(known[name](shape[1])).to(
            device, DTYPES[dtype], memory_format=FORMATS[memory_format]
        )
        for name in NAMES
    }

    def step_of(name: str, mode: str) -> Callable[[], object]:
        if mode == "training":
            return training(made[name], leaf, dy)
        return forward(made[name], x)

    result: dict[str, Any] = {"milliseconds": {}, "ratios": {}}
    every = [(name, mode) for name in NAMES for mode in MODES]
    if compiled:
        torch.compiler.reset()
        made = {
            name: torch.compile(block, fullgraph=True, dynamic=False, backend=sizes.backend)
            for name, block in made.items()
        }
    # All blocks of a class share a code object, of which torch compiles eight versions by default.
    with torch._dynamo.config.patch(recompile_limit=len(every)):
        started, ready = time.perf_counter(), []
        for name, mode in every:
            if not compiled or time.perf_counter() < end:
                step_of(name, mode)()
                ready.append((name, mode))
        if compiled:
            result["compile_seconds"] = round(time.perf_counter() - started, 1)
            left_out = [f"{name}, {mode}" for name, mode in every if (name, mode) not in ready]
            result["not_compiled"] = left_out
        for mode in MODES:
            steps = {name: step_of(name, mode) for name in NAMES if (name, mode) in ready}
            times = time_in_turn(steps, sizes.rounds, sizes.milliseconds, device)
            result["milliseconds"][mode] = {name: spread(found) for name, found in times.items()}
            result["ratios"][mode] = ratios(times, PAIRS)
    shown = result["ratios"]["training"].items()
    words = ", ".join(f"{pair} {ratio['median']:.2f}" for pair, ratio in shown)
    return {"summary": f"training: {words}", **result}
