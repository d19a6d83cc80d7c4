"""What a GPU must show: its tests, the speed of the blocks, of training, and of runs at once.

    make gpu                                                         # 500 seconds on one GPU
    python benchmarks/gpu.py --data DATA --out gpu.json --seconds 480 [--timm TRAIN.py]
    python benchmarks/gpu.py --dry-run                               # the plan, on any machine
    python benchmarks/gpu.py --device cpu                            # tiny sizes: tests this file

The parts are measured in the order of their importance. A part that does not fit into the seconds
that are left is skipped. A part that fails does not stop the others. The record names both, and it
is written anew after every part. At its end each target that was missed is printed with its number.

- `pytest -m cuda`: the tests that need a GPU.
- `blocks HOW DTYPE SHAPE FORMAT`: milliseconds of each block, forward, and forward with backward.
- `training ATTENTION BATCH`: images per second of every way in which our loop trains, and the most
  memory that it needs. `timm` and `scripts` compare them with others' scripts.
- `runs at once K`: a small comparison of which K runs share the GPU, and whether their weights are
  those of one run at a time.

Exit codes: 0 the record is written, 1 a part failed, 2 there is no GPU or a package is missing.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("torch", "torchvision", "timm", "numpy", "PIL", "safetensors", "huggingface_hub", "cpsam")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures a GPU, and writes one JSON record.")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="holds cifar100/, or its test")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the record")
    parser.add_argument("--seconds", type=float, default=500, help="for all parts together")
    parser.add_argument("--parts", nargs="+", default=["*"], metavar="PATTERN", help="only these")
    parser.add_argument("--timm", type=Path, metavar="FILE", help="train.py of timm's repository")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: tiny sizes")
    parser.add_argument("--dry-run", action="store_true", help="print the plan")
    return parser.parse_args(words)


def refuse(reason: str) -> int:
    print(f"benchmarks/gpu.py: {reason}", file=sys.stderr)
    return 2


def main(words: Sequence[str] | None = None) -> int:
    asked, started = parse(words), time.perf_counter()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        return refuse(f"needs {', '.join(missing)}, which python cannot import")
    import torch
    from gpu_parts import data
    from gpu_parts.part import Part
    from gpu_parts.plan import make_parts
    from gpu_parts.record import measure_and_record
    from gpu_parts.sizes import ON_CPU, ON_GPU

    sizes, found = ON_CPU if asked.device == "cpu" else ON_GPU, data.find(asked.data)

    def chosen(parts: list[Part]) -> list[Part]:
        return [part for part in parts if any(fnmatchcase(part.name, one) for one in asked.parts)]

    if asked.dry_run:
        parts = chosen(make_parts(sizes, asked.device, asked.timm, None))
        print(f"data: {found}")
        needed = sum(part.seconds for part in parts)
        print(f"{len(parts)} parts of {needed:.0f} s, as many as fit into {asked.seconds:.0f} s:")
        for part in parts:
            print(f"{part.seconds:6.0f} s  {part.name}")
        return 0
    for path in (asked.out.parent, asked.timm):
        if path is not None and not path.exists():
            return refuse(f"{path} is not there")
    if asked.device == "cuda" and not torch.cuda.is_available():
        return refuse("needs a CUDA GPU, and torch sees none; --dry-run prints the plan")
    dataset, found = data.load(found)
    print(f"data: {found}", flush=True)
    outcome = measure_and_record(
        chosen(make_parts(sizes, asked.device, asked.timm, dataset)),
        asked.out,
        device=asked.device,
        found=found,
        started=started,
        seconds=asked.seconds,
    )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
