"""Runs at once end as runs one after the other, whatever happens to their processes."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import processes
from support.digests import digest
from support.runs_at_once import Acting, ForkedProcess, planned, study_that_is_killed

from cpsam.errors import CpsamError, DataError, StoppedError, UserError
from cpsam.run.records import read_run
from cpsam.study import runs_at_once
from cpsam.study.execute_run import record_attempt
from cpsam.study.process_executor import ProcessExecutor
from cpsam.study.runs_at_once import choose_runs_at_once

pytestmark = pytest.mark.xdist_group("processes")  # One server forks the processes of all.

Event = dict[str, Any]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts processes in milliseconds."""
    monkeypatch.setattr("cpsam.study.process_executor.subprocess.Popen", ForkedProcess)


def never(*_: object) -> None:
    pytest.fail("trained in this process")


def run_all(
    folder: Path, count: int, acts: dict[int, str], on_event: Any = None, here: Any = never
) -> list[Event]:
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event)

    ProcessExecutor(2, Acting(acts), here).run(planned(folder, count), tell)
    return events


def statuses(folder: Path, count: int) -> list[str]:
    ends = [read_run(run.folder).outcome for run in planned(folder, count)]
    return [end.status if end else "missing" for end in ends]


def test_each_run_ends_in_another_process_and_a_death_is_no_end(
    quick: None, tmp_path: Path
) -> None:
    """The third death in a row at the same step is a failure, as in one process."""
    for _ in range(2):
        record_attempt(planned(tmp_path, 5)[4].folder)
    acts = {1: "dies once", 3: "diverges", 4: "dies"}
    events = run_all(tmp_path, 5, acts)
    assert statuses(tmp_path, 5) == ["done", "done", "done", "diverged", "failed"]
    died = [(event["index"], event["error"]) for event in events if event["event"] == "died"]
    assert sorted(index for index, _ in died) == [1, 4]
    assert "was killed by SIGKILL" in died[0][1]
    assert os.getpid() not in {event["pid"] for event in events if event["event"] == "begun"}
    ended = [event for event in events if event["event"] in ("finished", "diverged", "failed")]
    assert sorted(event["index"] for event in ended) == [0, 1, 2, 3, 4]
    again = run_all(tmp_path, 5, {})
    assert not any(event["event"] == "begun" for event in again), "what has ended is read"


@pytest.mark.parametrize(
    ("act", "error"), [("bad image", DataError), ("full disk", OSError)], ids=str
)
def test_an_error_that_a_person_can_mend_stops_all_runs_after_a_step(
    quick: None, tmp_path: Path, act: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"7\.png: cannot|No space left"):
        run_all(tmp_path, 3, {0: "is long", 1: act})
    assert statuses(tmp_path, 3) == ["missing"] * 3
    assert (planned(tmp_path, 3)[0].folder / "saved").exists()


def test_an_interrupt_stops_all_runs_after_a_step(quick: None, tmp_path: Path) -> None:
    begun: list[int] = []

    def interrupt(event: Event) -> None:
        begun.extend([event["index"]] if event["event"] == "begun" else [])
        if len(begun) == 2:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="has saved its step, and the same command continues"):
        run_all(tmp_path, 3, dict.fromkeys(range(3), "is long"), interrupt)
    runs = planned(tmp_path, 3)
    assert [(run.folder / "saved").exists() for run in runs] == [True, True, False]
    assert not list(tmp_path.glob("*/.attempts")), "a stop is no death"
    assert statuses(tmp_path, 3) == ["missing"] * 3
    run_all(tmp_path, 3, {})
    assert statuses(tmp_path, 3) == ["done"] * 3


def test_no_process_outlives_a_study_that_is_killed(tmp_path: Path) -> None:
    study = processes.start(study_that_is_killed, tmp_path, 1)
    deadline = time.monotonic() + 60
    while not (noted := list(tmp_path.glob("*.pid"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    study.kill()
    (pid,) = [int(path.stem) for path in noted]
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)
    assert (planned(tmp_path, 1)[0].folder / "saved").exists(), "it stopped after a step"


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_objects_that_only_this_process_has_are_trained_in_it(quick: None, tmp_path: Path) -> None:
    class Locked(Acting):
        """Cannot be pickled."""

        lock = threading.Lock()

        def __init__(self) -> None:
            super().__init__({})
            self.own = self.lock

    class Unknown(Acting):
        """Can be pickled, and read in this process alone."""

        def __reduce__(self) -> Any:
            return only_here, ()

    def only_here() -> None: ...

    only_here.__qualname__ = "only_here"
    sys.modules["a_module_of_this_process"] = SimpleNamespace(only_here=only_here)  # pyrefly: ignore
    only_here.__module__ = "a_module_of_this_process"
    for name, train in (("locked", Locked()), ("unknown", Unknown({}))):
        executor, events, runs = (
            ProcessExecutor(2, train, Acting({})),
            [],
            planned(tmp_path / name, 3),
        )
        ended = executor.run(runs, events.append)
        assert [end.done for end in ended.values()] == [True] * 3
        assert {event["pid"] for event in events if event["event"] == "begun"} == {os.getpid()}
        (note,) = [event["text"] for event in events if event["event"] == "note"]
        assert note.startswith("one run at a time, because") and executor.at_once == 1


def test_a_process_that_cannot_start_is_said_and_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpsam.study.process_executor.START", "raise SystemExit(7)")
    with pytest.raises(
        UserError, match=r"ended with exit code 7, before its first run; fewer `runs"
    ):
        run_all(tmp_path, 2, {})


@pytest.mark.parametrize(
    ("asked", "cores", "threads", "left", "at_once"),
    [
        (0, 2, 1, 12, 2),
        (0, 8, 2, 12, 4),
        (0, 8, 3, 12, 2),
        (0, 1, 4, 12, 1),
        (0, 8, 1, 3, 3),
        (0, 8, 1, 0, 1),
        (5, 2, 2, 12, 5),
        (5, 2, 2, 4, 4),
        (1, 8, 1, 12, 1),
    ],
)
def test_as_many_at_once_as_cores_and_runs_allow(
    monkeypatch: pytest.MonkeyPatch, asked: int, cores: int, threads: int, left: int, at_once: int
) -> None:
    monkeypatch.setattr(runs_at_once, "cpu_count", lambda: cores)
    runs = [SimpleNamespace(folder_name=str(index), threads=threads) for index in range(15)]
    plan: Any = SimpleNamespace(runs=runs)
    read: Any = SimpleNamespace(has_ended=lambda name: int(name) >= left)
    assert choose_runs_at_once(asked, plan, read) == at_once


@pytest.mark.parametrize("asked", [-1, 2.0, True, "2", 10**9])
def test_a_wrong_number_is_refused(asked: Any) -> None:
    with pytest.raises(CpsamError, match="runs_at_once must be a whole number from 0 to 1,024"):
        choose_runs_at_once(asked, Any, Any)


SCRIPT = """
import cpsam, torch
from torch import nn

print("once")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 2)
    def forward(self, x):
        return self.head(self.layer1(self.stem(x)).mean((2, 3)))

class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 20
    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8, generator=draw), index % 2

def tell(event):
    if event["event"] in ("note", "plan"):
        print(event.get("text") or event["at_once"])

def ask(folder, **options):
    blocks = {"none": None, "mine": lambda c: nn.Conv2d(c, c, 1)}
    data, how = (Noise(), Noise()), {"epochs": 2, "batch_size": 8, "drop_rate": 0.1, "seeds": 2}
    options |= {"progress": False, "on_event": tell, "at": "layer1.0"}
    cpsam.compare(blocks, model=lambda: Net(), data=data, folder=folder, **how, **options)

ask("at-once", runs_at_once=2)
ask("one-by-one", runs_at_once=1)
"""


def test_a_script_s_own_objects_end_with_the_same_bits_at_once(tmp_path: Path) -> None:
    """The script has no guard, so a process that imports it would run it again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["once", "2", "1"], done.stdout + done.stderr
    runs = sorted(path.parent.name for path in tmp_path.glob("at-once/*/summary.json"))
    assert len(runs) == 4
    for run in runs:
        assert digest(tmp_path / "at-once" / run) == digest(tmp_path / "one-by-one" / run)
