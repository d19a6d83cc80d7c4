"""How long a small comparison takes if several of its runs share the device."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_parts.sizes import Sizes

TRAIN_IMAGES = 6_120  # of cued-digits


def measure(
    left: float, *, sizes: Sizes, device: str, at_once: int, weights: dict[int, str]
) -> dict[str, Any]:
    """Runs ``cpsam compare`` and returns its wall time, and whether its bits are those of before.

    Args:
        left: Seconds that it may take.
        sizes: How many seeds.
        device: "cpu" or "cuda".
        at_once: How many runs share the device.
        weights: By number of runs at once, the hash of all weights; this call adds its own.

    Raises:
        RuntimeError: If the comparison fails.
        subprocess.TimeoutExpired: If it takes too long.
    """
    seeds = ",".join(map(str, range(sizes.seeds)))
    command = [sys.executable, "-m", "cpsam.cli", "compare", "--data", "cued-digits"]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--attention none,cpsam --seeds {seeds} --epochs 1 --runs-at-once {at_once}"
        started = time.perf_counter()
        ended = subprocess.run(
            [*command, *flags.split(), "--threads", "1", "--out", folder],
            env={**os.environ, **hidden},
            capture_output=True,
            text=True,
            timeout=left,
            check=False,
        )
        seconds = time.perf_counter() - started
        if ended.returncode:
            raise RuntimeError(
                f"cpsam compare ended with {ended.returncode}: {ended.stderr[-3000:]}"
            )
        files = sorted(Path(folder).rglob("weights.safetensors"))
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    weights[at_once] = hashlib.sha256("".join(digests).encode()).hexdigest()
    return {
        "summary": f"{len(files)} runs in {seconds:.1f} s",
        "runs": len(files),
        "wall_seconds": round(seconds, 2),
        "images_per_s": round(len(files) * TRAIN_IMAGES / seconds, 1),
        "same_weights_as": [other for other in weights if weights[other] == weights[at_once]],
        "other_weights_than": [other for other in weights if weights[other] != weights[at_once]],
    }
