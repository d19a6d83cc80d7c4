"""timm's own training script, timed step by step, to measure ours against. It is in timm's
repository, not in its package: `train.py`.

It is run as its users run it, as a program, on PNG files in a folder a class, with what it has for
speed: bfloat16 autocast, channels_last, its prefetcher, two loader workers. Its log gives the time
of every step, the wait for the loader included; the first ones, in which the workers start, are
left out.
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

# Our networks are registered with timm when this is imported; the script then finds them by name.
RUN = (
    "import runpy, sys; import cpsam.models.timm_models; sys.argv = sys.argv[1:];"
    " runpy.run_path(sys.argv[0], run_name='__main__')"
)
FLAGS = (
    "--device cpu --channels-last --amp --amp-dtype bfloat16 --workers 2 --model cifar_resnet20"
    " --num-classes 100 --img-size 32 --opt sgd --momentum 0.9 --weight-decay 5e-4 --lr 0.1"
    " --smoothing 0 --epochs 1 --warmup-epochs 0 --scale 0.5 1 --ratio 1 1 --color-jitter 0"
    " --train-interpolation bilinear --log-interval 1 --val-interval 1000 --train-split train"
    " --val-split val"
)
TIME = re.compile(r"Train: 0 \[.*?Time: ([0-9.]+)s")


@contextmanager
def timm_script(
    script: Path, dataset: Dataset, *, steps: int, warmup: int, batch: int, threads: int
) -> Iterator[Callable[[], float]]:
    """A function that runs the script for one epoch and returns images per second."""
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
                "--batch-size",
                str(batch),
                "--output",
                folder,
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            ended = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            times = [float(seconds) for seconds in TIME.findall(ended.stdout + ended.stderr)]
            if len(times) != warmup + steps:
                raise SystemExit(
                    f"{script} made {len(times)} of {warmup + steps}"
                    f" steps:\n{ended.stdout[-2000:]}\n{ended.stderr[-3000:]}"
                )
            return batch * steps / sum(times[warmup:])

        yield measure
