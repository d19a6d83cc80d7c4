"""Two processes make the run of one, stop at the same step, and continue with equal bits."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import processes, worker_process
from support.tiny import FULL

from cpsam.weights_file import load_weights

PLAIN: dict[str, Any] = {"epochs": 3, "batch_size": 8, "lr": 0.05, "precision": "float32"}


def notes(out: Path, size: int = 2) -> list[dict[str, Any]]:
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(size)]


def records(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


def train_together(size: int, *arguments: Any, codes: int = 0, **variables: str) -> None:
    group = processes.launch(size, worker_process.run, *arguments, **variables)
    assert [processes.end(process) for process in group] == [codes] * size


def weights(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("weights.safetensors", "best.safetensors")]


@pytest.mark.parametrize(
    "extra",
    [{}, {"mixup": 0.4, "cutmix": 1.0, "accumulate": 2, "clip_norm": 0.3, "ema_decay": 0.9}],
)
def test_any_number_of_processes_make_the_same_run(
    tmp_path: Path, extra: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    recipe = PLAIN | extra
    train_together(1, tmp_path / "one", tmp_path / "notes-one", recipe, "smooth")
    for size in (2, 3):
        train_together(size, tmp_path / f"{size}", tmp_path / f"notes-{size}", recipe, "smooth")
        check_equal_runs(tmp_path, size, record_property)
        if not extra:
            check_batches(tmp_path / f"notes-{size}", size, recipe)


def check_equal_runs(
    folder: Path, size: int, record_property: Callable[[str, object], None]
) -> None:
    for alone, shared in zip(records(folder / "one"), records(folder / f"{size}"), strict=True):
        gap = abs(alone["loss"] - shared["loss"])
        record_property(f"loss gap, 1 against {size} processes, epoch {alone['epoch']}", gap)
        assert gap < 1e-9
        # The sums of float64 losses are float64.
        assert alone["train_loss"] == pytest.approx(shared["train_loss"], abs=1e-6)
        assert {name: alone[name] for name in ("top1", "top5", "n")} == {
            name: shared[name] for name in ("top1", "top5", "n")
        }
    ours, theirs = (
        load_weights(folder / name / "weights.safetensors")[0] for name in ("one", f"{size}")
    )
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-9


def check_batches(out: Path, size: int, recipe: dict[str, Any]) -> None:
    seen = [note["seen"] for note in notes(out, size)]
    batches = [[image for part in parts for image in part] for parts in zip(*seen, strict=True)]
    assert [sorted(batch) for batch in batches] == [
        sorted(batch) for batch in worker_process.single_process_order(recipe)
    ]
    assert [note["events"] > 0 for note in notes(out, size)] == [True] + [False] * (size - 1)


@pytest.mark.parametrize("count", [1, 7, 13, 16])
def test_evaluation_sees_every_image_once(tmp_path: Path, count: int) -> None:
    group = [
        *processes.launch(1, worker_process.measure, tmp_path / "one", count),
        *processes.launch(3, worker_process.measure, tmp_path / "three", count),
    ]
    assert [processes.end(process) for process in group] == [0] * 4
    alone, shared = notes(tmp_path / "one", 1)[0], notes(tmp_path / "three", 3)
    assert all(note["result"] == pytest.approx(alone["result"], rel=1e-12) for note in shared)
    assert shared[0]["result"] == shared[1]["result"] == shared[2]["result"]
    assert sorted(size for note in shared for size in note["batches"]) == sorted(alone["batches"])
    assert alone["result"]["n"] == count
    assert len({tuple(note["calls"]) for note in shared}) == 1, (
        "called equally often, so that it may be a message to all"
    )


ACTS = {
    "SIGTERM to one, in a step": ({"ranks": [1], "at": ["train", 5], "signal": "SIGTERM"}, {}),
    "SIGTERM to all, twice": (
        {"ranks": [0, 1], "at": ["train", 5], "signal": "SIGTERM", "times": 2},
        {},
    ),
    "SIGUSR1 to one": ({"ranks": [1], "at": ["train", 5], "signal": "SIGUSR1"}, {}),
    "SIGINT, passed on by a launcher": (
        {"ranks": [0, 1], "at": ["train", 5], "signal": "SIGINT", "times": 2},
        {},
    ),
    "SIGTERM in an evaluation": ({"ranks": [1], "at": ["evaluation", 8], "signal": "SIGTERM"}, {}),
    "SIGTERM during saves": (
        {"ranks": [0], "at": ["train", 5], "signal": "SIGTERM"},
        {"checkpoint_steps": 1},
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train_together(2, folder / "run", folder / "notes", FULL)
    return folder


@pytest.mark.parametrize("name", ACTS)
def test_all_leave_at_the_same_step_and_continue_with_the_same_bits(
    tmp_path: Path, whole: Path, name: str
) -> None:
    act, options = ACTS[name]
    train_together(
        2, tmp_path / "run", tmp_path / "stopped", FULL, "residual", options, act, codes=75
    )
    stopped = notes(tmp_path / "stopped")
    # A step has two micro-batches. The signal came in the first one of step 3, or at the first
    # batch of the evaluation after step 4.
    step = 4 if act["at"][0] == "evaluation" else 3
    assert {note["error"].split(";")[0] for note in stopped} == {f"stopped after step {step} of 12"}
    assert f"the last checkpoint is of step {step} " in stopped[0]["error"]
    assert [note["shared"] for note in stopped] == [False, True]
    train_together(2, tmp_path / "run", tmp_path / "continued", FULL)
    assert records(tmp_path / "run") == records(whole / "run")
    assert weights(tmp_path / "run") == weights(whole / "run")
    parts = [
        a["seen"] + b["seen"] for a, b in zip(stopped, notes(tmp_path / "continued"), strict=True)
    ]
    assert parts == [note["seen"] for note in notes(whole / "notes")]


def test_a_run_may_go_on_with_fewer_processes(tmp_path: Path) -> None:
    act = {"ranks": [1], "at": ["train", 5], "signal": "SIGTERM"}
    train_together(2, tmp_path / "run", tmp_path / "a", PLAIN, "smooth", {}, act, codes=75)
    train_together(1, tmp_path / "run", tmp_path / "b", PLAIN, "smooth")
    train_together(1, tmp_path / "one", tmp_path / "c", PLAIN, "smooth")
    for mixed, alone in zip(records(tmp_path / "run"), records(tmp_path / "one"), strict=True):
        assert math.isclose(mixed["loss"], alone["loss"], abs_tol=1e-9)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["processes"], environment["resumed"][0]["processes"]) == (2, 1)


def test_the_end_of_one_process_is_the_end_of_all(tmp_path: Path) -> None:
    act = {"ranks": [1], "at": ["train", 9], "signal": "SIGKILL"}
    group = processes.launch(
        2, worker_process.run, tmp_path / "run", tmp_path / "notes", PLAIN, "residual", {}, act
    )
    assert [processes.end(process) for process in group] == [75, -9]
    left = json.loads((tmp_path / "notes" / "0.json").read_text())
    assert "another process of this run has ended" in left["error"]
    train_together(2, tmp_path / "run", tmp_path / "again", PLAIN)
    train_together(2, tmp_path / "whole", tmp_path / "more", PLAIN)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_what_process_0_refuses_all_refuse(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    train_together(2, tmp_path / "run", tmp_path / "notes", PLAIN, codes=2)
    found = notes(tmp_path / "notes")
    assert found[0]["error"] == found[1]["error"] and "holds other files" in found[0]["error"]
    assert [note["shared"] for note in found] == [False, True]


def test_a_loss_that_is_not_finite_in_one_stops_all(tmp_path: Path) -> None:
    train_together(
        2,
        tmp_path / "run",
        tmp_path / "notes",
        PLAIN | {"lr": 1e30, "schedule": "step", "milestones": ()},
        codes=4,
    )
    found = notes(tmp_path / "notes")
    assert found[0]["error"] == found[1]["error"]
    assert "on train images" in found[0]["error"]


def test_batchnorm_over_processes_is_refused_without_gpus(tmp_path: Path) -> None:
    train_together(2, tmp_path / "run", tmp_path / "notes", PLAIN | {"sync_bn": True}, codes=2)
    assert "sync_bn needs GPUs" in notes(tmp_path / "notes")[0]["error"]


def test_a_finished_run_is_read_by_all(tmp_path: Path) -> None:
    train_together(2, tmp_path / "run", tmp_path / "notes", PLAIN)
    train_together(2, tmp_path / "run", tmp_path / "again", PLAIN)
    assert [note["seen"] for note in notes(tmp_path / "again")] == [[], []]
