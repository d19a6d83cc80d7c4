"""A run that is killed anywhere and continued ends with the bytes of one that was not killed."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from support import killed_runs, processes
from support.digests import digest

AT_ONCE = 2
OPTIMIZERS = ("sgd", "adamw")


def finished(folder: Path, optimizer: str, **options: Any) -> str:
    process = processes.start(killed_runs.run, folder, optimizer, **options)
    assert processes.end(process) == 0
    return digest(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    return {optimizer: finished(folder / optimizer, optimizer) for optimizer in OPTIMIZERS}


def killed_and_continued(trials: list[tuple[Path, str, dict[str, Any]]]) -> list[tuple[int, str]]:
    """Returns for each trial the exit code of the run that is killed, and the digest of the folder
    after the run that continues it.

    It starts the processes from one thread: starting a process polls the others.
    """
    found = []
    for first in range(0, len(trials), AT_ONCE):
        batch = trials[first : first + AT_ONCE]
        killed = [
            processes.start(killed_runs.run, folder, optimizer, **options)
            for folder, optimizer, options in batch
        ]
        codes = [processes.end(process) for process in killed]
        again = [
            processes.start(killed_runs.run, folder, optimizer, saves=options.get("saves"))
            for folder, optimizer, options in batch
        ]
        assert [processes.end(process) for process in again] == [0] * len(batch)
        found += [(code, digest(folder)) for code, (folder, _, _) in zip(codes, batch, strict=True)]
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_at_every_call_that_changes_a_file(
    tmp_path: Path, whole: dict[str, str], optimizer: str
) -> None:
    assert finished(tmp_path / "counted", optimizer, log=tmp_path / "calls") == whole[optimizer]
    calls = json.loads((tmp_path / "calls.json").read_text())
    assert {
        "open to write",
        "write",
        "fsync",
        "replace",
        "mkdir",
        "open",
        "unlink",
        "rmdir",
    } <= set(calls)
    results = killed_and_continued(
        [
            (tmp_path / str(number), optimizer, {"call": number})
            for number in range(1, len(calls) + 1)
        ]
    )
    # Two threads write, so another run may make fewer calls. It then ends before the fatal one.
    assert all(code == -signal.SIGKILL for code, _ in results[:-3])
    wrong = [
        f"{number} ({calls[number - 1]})"
        for number, (_, found) in enumerate(results, 1)
        if found != whole[optimizer]
    ]
    assert not wrong, f"of {len(calls)} calls"


def test_at_fifty_random_parts_of_steps(tmp_path: Path, whole: dict[str, str]) -> None:
    draw = random.Random(7)
    trials = []
    for number in range(50):
        # A run has 8 steps of 2 micro-batches.
        options = {
            "forward": draw.randint(1, 16),
            "saves": {"checkpoint_steps": draw.choice([1, 2, 3])},
        }
        trials.append((tmp_path / str(number), OPTIMIZERS[number % 2], options))
    results = killed_and_continued(trials)
    assert {code for code, _ in results} == {-signal.SIGKILL}
    assert [found for _, found in results] == [
        whole[OPTIMIZERS[number % 2]] for number in range(50)
    ]


def test_again_and_again(tmp_path: Path, whole: dict[str, str]) -> None:
    """No run gets further than three steps before it is killed, but each step is saved."""
    saves = {"checkpoint_steps": 1}
    codes = []
    while not codes or codes[-1]:
        codes.append(
            processes.end(
                processes.start(killed_runs.run, tmp_path, "adamw", forward=6, saves=saves)
            )
        )
        assert len(codes) < 20
    assert digest(tmp_path) == whole["adamw"]
