"""timm's own training script, timed step by step, to measure ours against.

It is `train.py` in timm's repository, and not in its package. It runs as its users run it: as a
program, on PNG files in one folder per class. It has what it offers for speed: bfloat16 autocast,
channels_last, its prefetcher, and loader workers. Its log gives the rate of every step, which
includes the wait for the loader. The first steps, in which the workers start, are left out.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cpsam.data import Dataset

# The import registers our networks with timm, so that the script finds them by name.
RUN = """
import runpy, sys, torch, cpsam.models.timm_models
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("peak memory:", torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
"""
FLAGS = (
    "--channels-last --amp --amp-dtype bfloat16 --model cifar_resnet20"
    " --num-classes 100 --img-size 32 --opt sgd --momentum 0.9 --weight-decay 5e-4 --lr 0.1"
    " --smoothing 0 --epochs 1 --warmup-epochs 0 --scale 0.5 1 --ratio 1 1 --color-jitter 0"
    " --train-interpolation bilinear --log-interval 1 --val-interval 1000 --train-split train"
    " --val-split val"
)
RATE = re.compile(r"Train: 0 \[.*?Time: [0-9.]+s, +([0-9.]+)/s")
PEAK = re.compile(r"^peak memory: (\d+)$", re.M)


@contextmanager
def timm_script(
    script: Path,
    dataset: Dataset,
    *,
    steps: int,
    warmup: int,
    batch: int,
    threads: int,
    workers: int = 2,
    device: str = "cpu",
) -> Iterator[Callable[[], tuple[float, int]]]:
    """Yields a function that runs the script for one epoch.

    It returns images per second, and the most bytes that it had allocated on a GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, count = Path(folder) / "data", (warmup + steps) * batch
        parts = ("train", dataset.train, count), ("val", dataset.evaluation, batch)
        for name, split, images in parts:
            for index in range(images):
                path = data / name / f"{int(split.labels[index]):03d}" / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(split.images[index].permute(1, 2, 0).numpy()).save(path)

        def measure() -> float:
            command = [
                sys.executable,
                "-c",
                RUN,
                str(script),
                str(data),
                *FLAGS.split(),
                *f"--device {device} --workers {workers} --batch-size {batch}".split(),
                *("--output", folder),
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            ended = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            output = ended.stdout + ended.stderr
            rates = [float(rate) for rate in RATE.findall(output)]
            if len(rates) != warmup + steps:
                raise RuntimeError(
                    f"{script} made {len(rates)} of {warmup + steps} steps:\n{output[-5000:]}"
                )
            peak = PEAK.search(ended.stdout)
            return steps / sum(1 / rate for rate in rates[warmup:]), int(peak[1]) if peak else 0

        yield measure
