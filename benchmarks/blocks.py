"""Time and memory of every block against its peers, its bare convolution and the memory itself.

    python benchmarks/blocks.py > blocks.json  # all of it: about half an hour on two cores
    python benchmarks/blocks.py --shape 8x512x28x28 --dtype float32 --blocks non_local cpsam:sum

One process; for each shape, dtype, memory format and mode all blocks are timed interleaved, in
rounds of a random order, so that whatever else the machine does hits all of them. Milliseconds are
medians with quartiles; `memory` is the peak of a training step above what was there before, as a
multiple of the input's bytes, and `saved` what autograd keeps between forward and backward.

- `cpsam:FUSION` and the other blocks of ATTENTION, what starts at zero made small random numbers;
  `cpsam` is the default, `cpsam:grouped`;
- `timm:NonLocalAttn` with our inner width C/2, `timm:GlobalContext`, and `mmcv:NonLocal2d` where
  mmcv is installed (``pip install mmcv-lite``);
- `bare:sum` and `bare:depthwise`: the fusing convolution (1x1 dense; 3x3 depthwise), BatchNorm and
  the addition, as three torch layers;
- `copy`: the tensor read and written once.

The ratios under "targets" take the better memory format of each side, as somebody would who wants
speed.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from compared_blocks import DTYPES, FORMATS, SHAPES, awaken, blocks, shape_name
from torch import Tensor, nn

from cpsam.config.recipe import Recipe
from cpsam.measure import Latency, measure_latency, peak_memory_bytes
from cpsam.train.compute import choose_compute
from cpsam.train.environment import environment

MODES = ("forward", "training")
NON_LOCALS = ("non_local", "timm:NonLocalAttn", "mmcv:NonLocal2d")

# (ours, against, shapes, most that ours may take of the other's time: forward in eval, forward and
# backward in training)
LARGE, SMALL = ("8x512x28x28", "8x256x56x56"), ("16x1024x14x14", "16x256x14x14")
TARGETS = (
    ("cpsam:sum", "the fastest Non-Local", ("8x512x28x28",), 1 / 3.5, 1 / 3),
    ("cpsam:sum", "the fastest Non-Local", ("8x256x56x56",), 1 / 15, 1 / 12),
    ("cpsam:sum", "the fastest Non-Local", ("16x1024x14x14",), 1 / 2, 1 / 2),
    ("cpsam:sum", "bare:sum", LARGE, 1.15, 1.5),
    ("cpsam:sum", "bare:sum", SMALL, 1.5, 1.8),
    *(
        target
        for block in ("cpsam:depthwise", "cpsam:grouped")
        for target in (
            (block, "the fastest Non-Local", ("8x512x28x28",), 1 / 10, 1 / 6),
            (block, "the fastest Non-Local", ("8x256x56x56",), 1 / 30, 1 / 15),
            (block, "the fastest Non-Local", ("16x1024x14x14",), 1 / 10, 1 / 6),
            (block, "bare:depthwise", LARGE, 2.0, 1.8),
            (block, "bare:depthwise", SMALL, 3.0, 2.5),
        )
    ),
    (
        "non_local",
        "the fastest peer's Non-Local",
        tuple(map(shape_name, SHAPES)),
        1.0,
        1.0,
    ),
)


def forward(block: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    block = block.eval()

    def step() -> Tensor:
        with torch.inference_mode():
            return block(x)

    return step


def training(block: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], None]:
    """Forward and backward, for the input and all parameters, as in the middle of a network."""
    block = block.train()

    def step() -> None:
        x.grad = None
        block.zero_grad(set_to_none=True)
        block(x).backward(dy)

    return step


def saved_bytes(block: nn.Module, x: Tensor) -> int:
    """What autograd keeps of a training forward, each storage once, parameters left out: they are
    there anyway.
    """
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = block.train()(x)
    for parameter in block.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    del y
    return sum(storages.values())


def measure(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    names: list[str],
    seconds: float,
    modes: list[str],
) -> dict[str, dict[str, Any]]:
    source = torch.Generator().manual_seed(0)
    x, dy = (
        torch.randn(shape, generator=source).to(dtype).contiguous(memory_format=memory_format)
        for _ in range(2)
    )
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_(True)
    makers = blocks()
    made = {
        name: awaken(makers[name](shape[1])).to(dtype).to(memory_format=memory_format)
        for name in names
        if name in makers
    }
    rows: dict[str, dict[str, Any]] = {name: {} for name in made}
    for mode in modes:
        steps = {
            name: forward(block, x) if mode == "forward" else training(block, leaf, dy)
            for name, block in made.items()
        }
        if mode == "forward" and "copy" in names:
            out, rows["copy"] = torch.empty_like(x), {}
            steps["copy"] = lambda out=out: out.copy_(x)
        latency: dict[str, Latency] = measure_latency(steps, repeats=7, warmup=2, min_time=seconds)
        for name, found in latency.items():
            rows[name][mode] = asdict(found)
    if "training" in modes:
        for name, block in made.items():
            step = training(block, leaf, dy)
            rows[name]["memory"] = peak_memory_bytes(step) / x.nbytes
            rows[name]["saved"] = saved_bytes(block, leaf) / x.nbytes
    return rows


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The targets, in float32: the median of ours over the other's, the better memory format for
    each.
    """

    def best(shape: str, name: str, mode: str) -> float | None:
        found = [
            r["blocks"][name][mode]["median"]
            for r in results
            if r["shape"] == shape and name in r["blocks"] and r["dtype"] == "float32"
        ]
        return min(found, default=None)

    rivals = {"the fastest Non-Local": NON_LOCALS, "the fastest peer's Non-Local": NON_LOCALS[1:]}
    judged = []
    for ours, against, shapes, *limits in TARGETS:
        for shape in shapes:
            for mode, limit in zip(MODES, limits, strict=True):
                if any(
                    mode not in block
                    for r in results
                    for name, block in r["blocks"].items()
                    if name != "copy"
                ):
                    continue
                mine = best(shape, ours, mode)
                others = [
                    time
                    for name in rivals.get(against, (against,))
                    if (time := best(shape, name, mode)) is not None
                ]
                if mine is not None and others:
                    ratio = mine / min(others)
                    judged.append(
                        {
                            "block": ours,
                            "against": against,
                            "shape": shape,
                            "mode": mode,
                            "ratio": round(ratio, 3),
                            "times_faster": round(1 / ratio, 2),
                            "at_most": round(limit, 3),
                            "met": ratio <= limit,
                        }
                    )
    return judged


def main() -> None:
    known = [*blocks(), "copy"]
    parser = argparse.ArgumentParser(
        description="Time and memory of the blocks, as JSON on standard output."
    )
    parser.add_argument(
        "--shape",
        nargs="+",
        default=list(map(shape_name, SHAPES)),
        help="NxCxHxW",
    )
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--format", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--mode", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--blocks", nargs="+", default=known, choices=known)
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="that one setting lasts at least; never fewer than 7 rounds",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="the default, and the only form")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    results = []
    for shape in asked.shape:
        for dtype in asked.dtype:
            for layout in asked.format:
                print(f"{shape} {dtype} {layout}", file=sys.stderr)
                size = tuple(map(int, shape.split("x")))
                rows = measure(
                    size, DTYPES[dtype], FORMATS[layout], asked.blocks, asked.seconds, asked.mode
                )
                results.append({"shape": shape, "dtype": dtype, "format": layout, "blocks": rows})
    report = {
        "schema": 1,
        "environment": environment(choose_compute(Recipe(), "cpu"), torch.device("cpu")),
        "timing": {
            "load_average": os.getloadavg()[0],
            "targets": judge(results),
            "results": results,
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
