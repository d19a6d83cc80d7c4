"""A study that is killed at random, again and again, ends as one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLAN = """
name = "killed"
seeds = [0, 1, 2, 3, 4, 5]
recipe = { epochs = 2, lr = 0.1 }
[[setting]]
name = "last"
arms = ["none", "conv_control", "non_local", "cpsam"]
"""
KILLS = 5


def start(folder: Path) -> subprocess.Popen[bytes]:
    words = ["study", str(folder / "plan.toml"), "--out", str(folder)]
    with (folder / "output.txt").open("ab") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "cpsam.cli", *words],
            stdout=output,
            stderr=output,
            env=environment,
        )


def prepared(folder: Path) -> Path:
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN)
    return folder


def results(folder: Path) -> dict[str, Any]:
    """Without the clock, the folder's own name, and whether somebody edits the source meanwhile."""
    found = json.loads((folder / "killed" / "results.json").read_text())
    return {
        key: value
        for key, value in found.items()
        if key not in ("timing", "environment", "made_by", "unlike", "command")
    }


def ended(folder: Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("killed/*/summary.json")
    }


def test_killed_five_times_at_random_it_ends_with_the_same_results(tmp_path: Path) -> None:
    quiet, killed = prepared(tmp_path / "quiet"), prepared(tmp_path / "often-killed")
    assert start(quiet).wait(timeout=900) == 0, (quiet / "output.txt").read_text()
    draw, ends = random.Random(), []
    for _ in range(KILLS):
        child, goal = start(killed), len(ended(killed)) + draw.randint(1, 3)
        while len(ended(killed)) < goal:
            assert child.poll() is None, (killed / "output.txt").read_text()
            time.sleep(0.01)
        time.sleep(draw.random() * 2)  # somewhere in the next run
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, (killed / "output.txt").read_text()
        ends.append(ended(killed))
    assert start(killed).wait(timeout=900) == 0, (killed / "output.txt").read_text()
    assert results(killed) == results(quiet)
    last = ended(killed)
    assert len(last) == 24
    for earlier in ends:
        assert earlier.items() <= last.items(), "a run that had ended was made again"
