"""What an environment variable does to a training step: whole processes with and without it, in
turn.

    python benchmarks/environment_variable.py THP_MEM_ALLOC_ENABLE=1 [--rounds 7] [--steps 20]
    [--threads 2] > huge_pages.json

Torch and libgomp read theirs once, when they are loaded, so each measurement is a process of its
own: ResNet-20 with CPSAM before its last block, batches of 128 images of 32x32, float32,
channels-last, forward and backward; its time is the median over the steps. In odd rounds the
process with the variable comes first. The ratio is taken within a round: above 1 the variable
helps. All must end with the same loss.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

BATCH, WARMUP = 128, 3


def child(steps: int, threads: int) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from cpsam.models import create_model

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = (
        create_model("resnet20", 100, attention="cpsam", seed=0)
        .to(memory_format=torch.channels_last)
        .train()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels, times = torch.arange(BATCH) % 100, []
    for _ in range(WARMUP + steps):
        started = time.perf_counter()
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(times[WARMUP:]), "loss": loss.item()}))


def measured(
    variable: dict[str, str], without: set[str], asked: argparse.Namespace
) -> dict[str, Any]:
    kept = {key: value for key, value in os.environ.items() if key not in without}
    words = [
        sys.executable,
        __file__,
        "--child",
        "--steps",
        str(asked.steps),
        "--threads",
        str(asked.threads),
    ]
    return json.loads(
        subprocess.run(
            words, env={**kept, **variable}, check=True, capture_output=True, text=True
        ).stdout
    )


def spread(values: list[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variable", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.steps, asked.threads)
        return
    from cpsam.config.recipe import Recipe
    from cpsam.train.compute import choose_compute, find_device
    from cpsam.train.environment import environment

    variable = dict(each.split("=", 1) for each in asked.variable)
    found: dict[str, list[dict[str, Any]]] = {"with": [], "without": []}
    for index in range(asked.rounds):
        for which in ("with", "without") if index % 2 else ("without", "with"):
            found[which].append(measured(variable if which == "with" else {}, set(variable), asked))
            print(
                f"round {index + 1}/{asked.rounds}  {which} "
                f" {1000 * found[which][-1]['seconds']:.1f} ms",
                file=sys.stderr,
            )
    losses = {each["loss"] for side in found.values() for each in side}
    if len(losses) != 1:
        sys.exit(f"the loss depends on it: {sorted(losses)}")
    pairs = zip(found["without"], found["with"], strict=True)
    timing = {
        f"milliseconds_{which}": spread([1000 * each["seconds"] for each in side])
        for which, side in found.items()
    }
    timing["ratio"] = spread(
        [without["seconds"] / with_it["seconds"] for without, with_it in pairs]
    )
    where = {
        **environment(choose_compute(Recipe(precision="float32")), find_device()),
        "threads": asked.threads,
    }
    report = {
        "variable": variable,
        "rounds": asked.rounds,
        "steps": asked.steps,
        "environment": where,
        "timing": timing,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
