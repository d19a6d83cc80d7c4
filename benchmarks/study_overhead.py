"""What an executor adds to the runs themselves: time from the first run's start to the last one's
end, against the sum of the runs.

    python benchmarks/study_overhead.py [--seconds 60] [--runs 4] [--ray]

The runs sleep, so that nothing but the executor is measured, on a machine that does other things
too.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.files import write_json
from cpsam.run.arm import Arm
from cpsam.run.events import OnEvent
from cpsam.run.spec import RunSpec
from cpsam.study.execute_run import PlannedRun, Train
from cpsam.study.executor import InProcess
from cpsam.train.run_config import CONFIG, SETTLED, plain
from cpsam.train.run_folder import RunFolder


def sleeper(seconds: float) -> Train:
    def train(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        began = time.time()
        for step in range(int(2 * seconds)):  # tells of its steps as training does
            on_event({"event": "step", "step": step})
            time.sleep(0.5)
        ended = time.time()
        config = plain({**spec.content, SETTLED: {}})
        write_json(folder / CONFIG, config)
        summary = {
            "epochs": 1,
            "steps": 1,
            "train_loss": 1.0,
            "top1": 0.5,
            "top5": 1.0,
            "loss": 1.0,
            "n": 1,
        }
        timing = {"train_seconds": ended - began, "evaluation_seconds": 0.0, "images_per_s": 1.0}
        times = {
            "best": {"epoch": 1, "top1": 0.5},
            "timing": timing,
            "began": began,
            "ended": ended,
        }
        return RunFolder(folder, config).finish({**summary, **times})

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--ray", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specs = [
            RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), seed, Recipe(), 1)
            for seed in range(asked.runs)
        ]
        runs = [
            PlannedRun(spec, folder / spec.folder_name, index, len(specs))
            for index, spec in enumerate(specs)
        ]
        train, lanes = sleeper(asked.seconds), 1
        if asked.ray:
            from cpsam.study.ray_executor import RayExecutor

            with RayExecutor(train=train) as executor:
                lanes = int(executor.ray.cluster_resources()["CPU"])
                executor.run(runs, lambda event: None)
                returned = time.time()
        else:
            InProcess(train).run(runs, lambda event: None)
            returned = time.time()
        times = [json.loads((run.folder / "summary.json").read_text()) for run in runs]
    wall, spent = (
        returned - min(each["began"] for each in times),
        sum(each["timing"]["train_seconds"] for each in times),
    )
    overhead = wall * min(lanes, asked.runs) / spent - 1
    print(
        f"{asked.runs} runs of {asked.seconds:g} s, {lanes} at once: {wall:.2f} s; overhead"
        f" {overhead:.2%}"
    )


if __name__ == "__main__":
    main()
