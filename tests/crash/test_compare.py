"""A comparison whose process is killed in the middle of a run ends with the results of one that
nobody killed.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.compare_command import compare

from cpsam.config.recipe import Recipe
from cpsam.config.study import Comparison

ARMS = ("none", "cpsam", "non_local")


def results(out: Path) -> dict[str, Any]:
    comparison = Comparison(
        attention=ARMS, seeds=(0, 4), recipe=Recipe(epochs=1, lr=0.1), out=out, threads=2
    )
    return {
        key: value
        for key, value in compare(comparison, command="cpsam compare").items()
        if key != "timing"
    }


def test_a_process_killed_in_the_middle_of_a_run_changes_nothing(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    words = [
        "compare",
        "--epochs",
        "1",
        "--lr",
        "0.1",
        "--seeds",
        "0",
        "4",
        "--threads",
        "2",
        "--attention",
        *ARMS,
        "--out",
        str(killed),
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "cpsam.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while (
        len(list(killed.glob("*/*/summary.json"))) < 2
        and child.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert 2 <= len(list(killed.glob("*/*/summary.json"))) < 2 * len(ARMS)
    assert results(killed) == results(tmp_path / "whole")
