"""The command line under torchrun and under srun's variables: one process prints, all end with the
code that it means.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import processes

Start = Callable[..., "subprocess.Popen[str]"]
# Nine tenths are held out, so that an epoch takes a second.
WORDS = [
    "-m",
    "cpsam.cli",
    "train",
    "--attention",
    "none",
    "--model",
    "resnet20",
    "--batch-size",
    "64",
    "--validation",
    "0.9",
]
SECONDS = 400  # it takes twenty, on a machine that has nothing else to do


def words(out: Path, *more: str) -> list[str]:
    return [*WORDS, "--threads", "1", "--out", str(out), "--epochs", "1", *more]


def environment(**variables: str) -> dict[str, str]:
    return (
        {name: value for name, value in os.environ.items() if name != "RANK"}
        | {"OMP_NUM_THREADS": "1"}
        | variables
    )


@pytest.fixture
def started() -> Iterator[Start]:
    """Starts processes, and ends those that a failed test leaves behind."""
    with ExitStack() as stack:

        def start(command: list[str], **variables: str) -> "subprocess.Popen[str]":
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            process = subprocess.Popen(
                command, **streams, text=True, env=environment(**variables), start_new_session=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_torchrun_and_srun_make_the_same_run(tmp_path: Path, started: Start) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(processes.free_port()),
    ]
    launched = subprocess.run(
        [*torchrun, *words(tmp_path / "torchrun")],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=SECONDS,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("top-1") == 1
    job = {
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": str(processes.free_port()),
        "SLURM_STEP_ID": "0",
        "SLURM_NODELIST": "localhost",
    }
    tasks = [
        started(
            [sys.executable, *words(tmp_path / "srun")],
            **job,
            SLURM_PROCID=rank,
            SLURM_LOCALID=rank,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    outputs = [task.communicate(timeout=SECONDS) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert [out.count("top-1") for out, _ in outputs] == [1, 0]
    assert outputs[1][1] == "", "process 1 prints nothing"
    summaries = [
        json.loads((tmp_path / name / "summary.json").read_text()) | {"timing": None}
        for name in ("torchrun", "srun")
    ]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_sigterm_ends_all_in_time_and_resumably(
    tmp_path: Path, launcher: str, started: Start
) -> None:
    run, more = tmp_path / "run", ["--epochs", "500", "--checkpoint-steps", "1"]
    if launcher == "torchrun":
        port = str(processes.free_port())
        head = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--master-port",
            port,
        ]
        tasks = [started([*head, *words(run, *more)])]
    else:
        job = {
            "SLURM_NTASKS": "2",
            "SLURM_JOB_ID": str(processes.free_port()),
            "SLURM_NODELIST": "localhost",
        }
        tasks = [
            started(
                [sys.executable, *words(run, *more)], **job, SLURM_PROCID=rank, SLURM_LOCALID=rank
            )
            for rank in ("0", "1")
        ]
    deadline = time.monotonic() + SECONDS
    while not (run / "checkpoints" / "LATEST").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    sent = time.monotonic()
    for task in tasks:
        (
            os.killpg(task.pid, signal.SIGTERM)
            if launcher == "srun"
            else task.send_signal(signal.SIGTERM)
        )
    outputs = [task.communicate(timeout=60) for task in tasks]
    assert time.monotonic() - sent < 30, "torchrun would have killed them"
    told = "".join(err for _, err in outputs)
    assert told.count("cpsam: stopped after step") == 1, told
    if launcher == "srun":
        assert [task.returncode for task in tasks] == [75, 75]
    assert (run / "checkpoints" / "LATEST").exists() and not (run / "summary.json").exists()
