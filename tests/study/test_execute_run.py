"""Each run has one end, also where processes die or work on the same run."""

import fcntl
from pathlib import Path

import pytest
from support.quick_runs import QUIET, Fake

from cpsam.config.recipe import Recipe
from cpsam.config.task import Task
from cpsam.errors import DataError, StoppedError
from cpsam.run.arm import Arm
from cpsam.run.records import read_run
from cpsam.run.spec import RunSpec
from cpsam.study.execute_run import PlannedRun, execute_run, forget_failure, record_attempt


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    spec = RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), 0, Recipe(), 1)
    run, fake = PlannedRun(spec, tmp_path / spec.folder_name, 0, 1), Fake()
    run.folder.mkdir()
    with (run.folder / ".claim").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert execute_run(run, fake, QUIET) is None
        assert read_run(run.folder).outcome is None and fake.made == []
    assert execute_run(run, fake, QUIET) is not None
    assert fake.made == ["none0"]


def die(folder: Path, times: int, reached: str = "") -> None:
    """A process dies at the run in this folder so many times."""
    for _ in range(times):
        record_attempt(folder)
        if reached:
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "LATEST").write_text(reached)


def one_run(folder: Path) -> PlannedRun:
    spec = RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), 0, Recipe(), 1)
    return PlannedRun(spec, folder / spec.folder_name, 0, 1)


def test_a_run_that_killed_its_process_three_times_has_failed_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    run, fake = one_run(tmp_path), Fake()
    die(run.folder, 3)
    assert execute_run(run, fake, QUIET) and fake.made == []
    end = read_run(run.folder).outcome
    assert end is not None and end.status == "failed"
    assert end.error is not None and "3 times in a row" in end.error and "retry_failed" in end.error
    forget_failure(run.folder)
    assert execute_run(run, fake, QUIET) and fake.made == ["none0"]


@pytest.mark.parametrize(
    "error",
    [StoppedError("stopped"), KeyboardInterrupt(), OSError("disk full"), DataError("an image")],
)
def test_a_run_that_was_stopped_in_words_has_not_died(tmp_path: Path, error: BaseException) -> None:
    run = one_run(tmp_path)
    die(run.folder, 2)
    with pytest.raises(type(error)):
        execute_run(run, Fake(none0=error), QUIET)  # pyrefly: ignore
    assert not (run.folder / ".attempts").exists()


def test_a_run_that_gets_ahead_between_two_deaths_goes_on(tmp_path: Path) -> None:
    run, fake = one_run(tmp_path), Fake()
    for step in range(1, 9):
        die(run.folder, 1, f"step-{step}")
    assert execute_run(run, fake, QUIET) and fake.made == ["none0"]
    die(run.folder, 1, "step-9")
    die(run.folder, 2)
    (run.folder / "summary.json").unlink()
    assert execute_run(run, fake, QUIET) and fake.made == ["none0"], (
        "and one that does not, has failed"
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"deaths": -1}', '{"deaths": "9", "checkpoint": ""}']
)
def test_a_damaged_count_of_deaths_begins_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / ".attempts").write_text(content)
    assert record_attempt(tmp_path) == 0 and record_attempt(tmp_path) == 1
