"""The files of a run, damaged in every way: the error names the file and the field, and no number
of another run is believed.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import add_epoch, begin, finish

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.data import load_dataset
from cpsam.errors import DataError, UserError
from cpsam.run.arm import Arm
from cpsam.run.data import LoadedTask
from cpsam.run.evaluate_run import evaluate_run
from cpsam.run.records import RunConfig, StoredRun, read_run
from cpsam.run.spec import RunSpec
from cpsam.study.budget import epochs_in_time
from cpsam.study.claim import claim
from cpsam.study.execute_run import record_failure
from cpsam.typed import STUDY_BYTES, checked, read_record

SPEC = RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), 0, Recipe(), 1)
OTHER = replace(SPEC, arm=Arm("cpsam", "cpsam"), seed=3)
FILES = (
    "config.json",
    "summary.json",
    "metrics.jsonl",
    "environment.json",
    "diverged.json",
    "failed.json",
)
DEEP = "[" * 50_000


def make(folder: Path, spec: RunSpec = SPEC, top1: float = 0.5) -> Path:
    run = folder / spec.folder_name
    add_epoch(begin(spec, run))
    finish(spec, run, top1=top1)
    (run / "environment.json").write_text(
        '{"versions": {"torch": "2"}, "threads": 1, "runs": "many"}'
    )
    return run


def read(run: Path) -> StoredRun:
    """Reads all files of a run."""
    stored = read_run(run)
    assert stored.curve is not None and stored.environment != {}
    return stored


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    found = read(make(tmp_path))
    assert (
        found.done
        and found.outcome is not None
        and found.outcome.top1 == 0.5
        and found.curve == {"top1": [0.5], "train_loss": [2.0]}
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "null", "\xff", DEEP, '{"a":' * 50_000, "NaN", "1e999", "9" * 5000, '"text"'],
)
def test_a_file_that_is_no_object_is_named(tmp_path: Path, name: str, content: str) -> None:
    run = make(tmp_path)
    if name in ("diverged.json", "failed.json"):
        (run / "summary.json").unlink()
    (run / name).write_bytes(f"{content}\n".encode("latin-1"))
    with pytest.raises(DataError, match=name):
        read(run)


VALUES: list[Any] = [
    "high",
    None,
    [],
    {},
    True,
    float("nan"),
    float("inf"),
    -1,
    10**29,
    10**400,
    "0.5",
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize("key", ["top1", "top5", "loss", "timing"])
@pytest.mark.parametrize("old", [True, False])
def test_a_number_of_a_summary_that_is_none_is_refused(
    tmp_path: Path, key: str, value: Any, old: bool
) -> None:
    run = make(tmp_path)
    summary = json.loads((run / "summary.json").read_text()) | {key: value}
    if old:  # records of before there were identities and hashes
        del summary["identity"]
        if isinstance(summary["timing"], dict):
            summary["timing"].pop("sha256", None)
    (run / "summary.json").write_text(json.dumps(summary))
    if old and key == "loss" and value in (-1, 10**29):
        assert read(run).done, "a number, if a strange one"
    else:
        with pytest.raises(DataError, match=r"summary\.json"):
            read(run)


@pytest.mark.parametrize("key", ["top1", "train_loss"])
@pytest.mark.parametrize(
    "value", ["high", None, float("nan"), 10**400], ids=lambda value: str(value)[:9]
)
def test_a_number_of_a_curve_that_is_none_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    run = make(tmp_path)
    record = json.loads((run / "metrics.jsonl").read_text()) | {key: value}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        read(run)


@pytest.mark.parametrize(
    "content",
    [
        {"versions": "2"},
        {"versions": {"torch": []}},
        {"resumed": "x"},
        {"resumed": [3]},
        {"threads": "1"},
        {"commit": 3},
        {"processor": {}},
    ],
)
def test_a_field_of_an_environment_of_another_type_is_named(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    run = make(tmp_path)
    (run / "environment.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"environment\.json: {next(iter(content))}"):
        read(run)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"error": 3},
        {"error": None},
        {"error": "x", "run": 3},
        {"error": "x", "run": "another-run"},
    ],
)
@pytest.mark.parametrize("name", ["diverged.json", "failed.json"])
def test_an_end_that_says_nothing_or_is_of_another_run_is_refused(
    tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=name):
        read_run(tmp_path)


def test_the_files_of_another_run_are_not_believed(tmp_path: Path) -> None:
    for name in ("summary.json", "config.json", "metrics.jsonl"):
        folder = tmp_path / name
        folder.mkdir()
        mine, other = make(folder), make(folder, OTHER, top1=0.9)
        shutil.copy(other / name, mine / name)
        with pytest.raises(DataError, match=rf"{name}.* another run|config\.json"):
            read(mine)
        read(other)


def test_folders_whose_names_were_exchanged_are_not_believed(tmp_path: Path) -> None:
    mine, other = make(tmp_path), make(tmp_path, OTHER, top1=0.9)
    mine.rename(tmp_path / "x")
    other.rename(mine)
    (tmp_path / "x").rename(other)
    for run in (mine, other):
        with pytest.raises(DataError, match=r"config\.json: it is of another run"):
            read(run)


def test_a_record_of_an_end_that_was_copied_is_not_believed(tmp_path: Path) -> None:
    for spec in (SPEC, OTHER):
        record_failure(tmp_path / spec.folder_name, "failed", "no memory")
    assert read(tmp_path / SPEC.folder_name).outcome is not None
    shutil.copy(
        tmp_path / OTHER.folder_name / "failed.json", tmp_path / SPEC.folder_name / "failed.json"
    )
    with pytest.raises(DataError, match=r"failed\.json: it is of another run"):
        read(tmp_path / SPEC.folder_name)


def test_a_summary_without_its_configuration_is_of_any_run(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json is missing"):
        read(run)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_is_refused_and_hangs_nothing(
    tmp_path: Path, name: str, kind: str
) -> None:
    run = make(tmp_path)
    if name in ("diverged.json", "failed.json"):
        (run / "summary.json").unlink()
    (run / name).unlink(missing_ok=True)
    replace_by(run / name, kind)
    with pytest.raises((DataError, OSError), match=name):
        read(run)


def replace_by(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(STUDY_BYTES + 1)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link"])
def test_a_lock_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".writing"
    if kind == "link":
        lock.symlink_to(tmp_path / "outside")
    else:
        replace_by(lock, kind)
    with pytest.raises((DataError, OSError), match=r"\.writing"), claim(lock):
        pass
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/*/config.json"))[::8],
    ids=lambda path: path.parent.name,
)
def test_the_committed_runs_of_older_versions_are_read(path: Path) -> None:
    end = read_run(path.parent).outcome
    assert end is not None and end.status == "done"


def test_the_types_of_records() -> None:
    assert checked(int | None, None, "x") is None and checked(tuple[str, int], ["a", 1], "x") == (
        "a",
        1,
    )
    for kind, value in (
        (int, 1.0),
        (int, True),
        (float, "1"),
        (str, 1),
        (bool, 1),
        (tuple[str, str], ["a"]),
        (dict[str, int], {"a": "b"}),
    ):
        with pytest.raises(DataError, match="x"):
            checked(kind, value, "x")
    assert read_record(RunConfig, Path("nowhere.json")) is None


@pytest.mark.parametrize(
    "content",
    [{}, {"data": 3}, {"data": {"name": []}}, {"data": None, "model": "x", "settled": {}}],
)
def test_a_run_with_a_damaged_configuration_is_not_measured(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(DataError, match=r"config\.json: .*(data|model|name)"):
        evaluate_run(tmp_path, None, "test", lambda event: None)


def test_a_clock_that_stands_still_measures_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 1.0)
    arms, recipes = {"eca": Arm("eca", "eca")}, {"eca": Recipe(epochs=2, batch_size=8)}
    with pytest.raises(UserError, match="clock of this machine stands still"):
        epochs_in_time(recipes, arms, LoadedTask(Task(), load_dataset("digits")), {}, threads=1)
