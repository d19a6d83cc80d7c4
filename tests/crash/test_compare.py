"""A comparison that is stopped or killed ends with the results of one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.compare_command import compare
from support.processes import family

from cpsam.config.recipe import Recipe
from cpsam.config.study import Comparison

ARMS = ("none", "cpsam", "non_local")
WORDS = [
    "--data",
    "digits",
    "--epochs",
    "1",
    "--lr",
    "0.1",
    "--seeds",
    "0",
    "4",
    "--runs-at-once",
    "2",
]


def results(out: Path) -> dict[str, Any]:
    comparison = Comparison(attention=ARMS, seeds=(0, 4), recipe=Recipe(epochs=1, lr=0.1), out=out)
    return {
        key: value
        for key, value in compare(comparison, command="cpsam compare").items()
        if key != "timing"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        (signal.SIGKILL, False),
        (signal.SIGTERM, False),
        (signal.SIGTERM, True),
        (signal.SIGINT, True),
    ],
)
def test_a_command_that_is_ended_in_the_middle_of_its_runs_changes_nothing(
    tmp_path: Path, whole: dict[str, Any], number: signal.Signals, to_all: bool
) -> None:
    """A terminal and a batch system send their signals to all processes of the command."""
    words = ["compare", *WORDS, "--attention", *ARMS, "--out", str(tmp_path)]
    child = subprocess.Popen(
        [sys.executable, "-m", "cpsam.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*/*/summary.json"))) < 2 and time.monotonic() < deadline:
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.02)
    time.sleep(0.1)
    processes = family(child.pid)
    assert len(processes) >= 3
    (os.killpg if to_all else os.kill)(child.pid, number)
    said = child.communicate()[1]
    stopped = number != signal.SIGKILL
    assert child.returncode == (75 if stopped else -signal.SIGKILL), said
    if stopped:
        assert said.splitlines()[-1].endswith("and the same command continues")
        assert "Traceback" not in said
        assert not list(tmp_path.glob("*/*/.attempts")), "a stop is no death"
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, processes))
    assert 2 <= len(list(tmp_path.glob("*/*/summary.json"))) < 2 * len(ARMS)
    assert results(tmp_path) == whole


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
