"""ImageNet's path from end to end: a thousand classes of JPEGs at 224, ResNet-50 with CPSAM, two
processes under torchrun, killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support import processes
from support.imagenet_tree import write_folder

CLASSES, BATCH, KEPT = 1000, 40, 3
SECONDS = 1500


def start(data: Path, out: Path) -> "subprocess.Popen[str]":
    launcher = (
        f"torch.distributed.run --nproc-per-node 2 --master-port {processes.free_port()} -m"
        " cpsam.cli train"
    )
    flags = (
        f"--preset imagenet-120ep --epochs 1 --warmup-epochs 0.4 --batch-size {BATCH} --threads 1"
        " --workers 1"
    )
    keep = f"--checkpoint-steps {KEPT} --json --data-root {data} --out {out}"
    command = [sys.executable, "-m", *launcher.split(), *flags.split(), *keep.split()]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **streams)


def test_resnet50_with_cpsam_is_killed_and_continues(tmp_path: Path) -> None:
    data, out = (
        write_folder(tmp_path / "imagenet", classes=CLASSES, train=1, validation=1),
        tmp_path / "run",
    )
    kept = out / "checkpoints" / "LATEST"
    with start(data, out) as launcher:
        deadline = time.monotonic() + SECONDS
        while not kept.exists():
            assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()
            time.sleep(0.1)
        for process in processes.family(launcher.pid):  # at once, as when the power goes
            os.kill(process, signal.SIGKILL)
        assert launcher.wait() == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    kept_step = json.loads(kept.read_text().splitlines()[0])["step"]
    assert kept_step % KEPT == 0 and kept_step > 0

    with start(data, out) as continued:
        output, told = continued.communicate(timeout=SECONDS)
    assert continued.returncode == 0, told
    assert f"continues after step {kept_step} of {CLASSES // BATCH}" in told
    summary = json.loads(output)
    assert summary == json.loads((out / "summary.json").read_text())
    (line,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {name: line[name] for name in ("epoch", "step", "n")} == {
        "epoch": 1,
        "step": CLASSES // BATCH,
        "n": CLASSES,
    }
    assert 0 <= line["top1"] <= line["top5"] <= 1
    assert 5 < line["train_loss"] < 9 and 5 < line["loss"] < 9, "ln 1000 is 6.9"
    config = json.loads((out / "config.json").read_text())
    assert (config["model"], config["attention"], config["at"]) == (
        "timm/resnet50",
        "cpsam",
        ["gc-c3-c5"],
    )
