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
NAMES = (*BARE, "bare:depthwise", "bare:sum", "non_local", "global_context", "squeeze_excite")
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
    result: dict[str, Any] = {"milliseconds": {}, "ratios": {}}
    if compiled:
        torch.compiler.reset()
        made = {
            name: torch.compile(block, fullgraph=True, dynamic=False, backend=sizes.backend)
            for name, block in made.items()
        }
        result |= {"compile_seconds": 0.0, "not_compiled": []}
    with torch._dynamo.config.patch(recompile_limit=8 * len(NAMES)):
        for mode in MODES:
            steps: dict[str, Callable[[], object]] = {}
            for name, block in made.items():
                step = training(block, leaf, dy) if mode == "training" else forward(block, x)
                begin = time.perf_counter()
                if compiled and begin > end:
                    result["not_compiled"].append(f"{name}, {mode}")
                    continue
                step()
                if compiled:
                    result["compile_seconds"] += time.perf_counter() - begin
                steps[name] = step
            times = time_in_turn(steps, sizes.rounds, sizes.milliseconds, device)
            result["milliseconds"][mode] = {name: spread(found) for name, found in times.items()}
            result["ratios"][mode] = ratios(times, PAIRS)
    shown = result["ratios"]["training"].items()
    words = ", ".join(f"{pair} {ratio['median']:.2f}" for pair, ratio in shown)
    return {"summary": f"training: {words}", **result}
