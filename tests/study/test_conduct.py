"""What a study reports of its runs: ended, failed, missing, made by several processes."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import add_epoch, begin
from support.quick_runs import QUIET, STUDY, Fake, carried_out, statuses

import cpsam.study.conduct as study_conduct
from cpsam.config.study import Setting
from cpsam.config.task import Task
from cpsam.errors import DataError, DivergedError, StoppedError, UserError
from cpsam.run.events import Event
from cpsam.run.records import read_run
from cpsam.study.conduct import conduct
from cpsam.study.execute_run import PlannedRun
from cpsam.study.executor import InProcess
from cpsam.study.history import make_and_write_plan
from cpsam.study.run_reader import RunReader


@pytest.fixture(autouse=True)
def without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency and memory have tests of their own, and take longer than all that is asked here."""
    monkeypatch.setattr(
        study_conduct,
        "measure_arms",
        lambda plan, runs, on_event: {"environment": {}, "timing": {"arms": {}}},
    )


def test_a_run_that_fails_stays_in_the_table_and_the_others_go_on(tmp_path: Path) -> None:
    fake = Fake(
        non_local0=RuntimeError("no memory"),
        cpsam1=DivergedError("the loss is nan"),
        none1=ValueError("a bad block"),
    )
    results = carried_out(tmp_path, fake)
    assert statuses(results) == {
        "none0": "done",
        "none1": "failed",
        "non_local0": "failed",
        "non_local1": "done",
        "cpsam0": "done",
        "cpsam1": "diverged",
    }
    errors = {run["error"] for arm in results["arms"] for run in arm["runs"]}
    assert errors == {None, "RuntimeError: no memory", "the loss is nan", "ValueError: a bad block"}
    failed = next(tmp_path.glob("non-local-seed0-*/failed.json"))
    assert "Traceback" in json.loads(failed.read_text())["traceback"][0]
    again = Fake()
    assert statuses(carried_out(tmp_path, again)) == statuses(results)
    assert again.made == [], "what failed has ended"
    retried = carried_out(tmp_path, again, retry_failed=True)
    assert sorted(again.made) == ["non_local0", "none1"], "what diverged would diverge again"
    assert list(statuses(retried).values()).count("done") == 5


MENDABLE = [
    DataError("a/7.png: cannot be read"),
    UserError("this holds a run on cuda, and this is cpu"),
    OSError("disk full"),
]


@pytest.mark.parametrize("error", [*MENDABLE, StoppedError("stopped"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_run_ends_the_study_and_not_the_run(
    tmp_path: Path, error: Exception
) -> None:
    """A disk that is full or gone, data that is not that of the plan, another kind of machine:
    mended, the same command goes on.
    """
    with pytest.raises(StoppedError if isinstance(error, KeyboardInterrupt) else type(error)):
        carried_out(tmp_path, Fake(non_local0=error))
    fake = Fake()
    assert set(statuses(carried_out(tmp_path, fake)).values()) == {"done"}
    assert len(fake.made) == 5


def test_a_report_in_between_counts_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        carried_out(tmp_path, Fake(none1=StoppedError("stopped")))
    results = conduct(STUDY, tmp_path, train=False)
    assert list(statuses(results).values()).count("missing") == 3
    assert "6 runs: 3 done, 3 missing" in (tmp_path / "report.md").read_text()


def test_a_report_reads_the_whole_lines_of_a_run_that_is_being_written(tmp_path: Path) -> None:
    spec = next(iter(make_and_write_plan(STUDY, RunReader(tmp_path), QUIET)[0].runs))
    add_epoch(begin(spec, tmp_path / spec.folder_name))
    with (tmp_path / spec.folder_name / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "top1": 0.6, "tra')
    results = conduct(STUDY, tmp_path, train=False)
    assert results["arms"][0]["runs"][0]["curve"] == {"top1": [0.5], "train_loss": [2.0]}


def test_finished_runs_are_counted_by_where_they_were_made(tmp_path: Path) -> None:
    results = carried_out(tmp_path, Fake())
    assert results["made_by"] == [], "these runs left no word of it"
    plan, _ = make_and_write_plan(STUDY, RunReader(tmp_path), QUIET)
    for index, spec in enumerate(plan.runs):
        where = {"commit": "ab" if index < 4 else "cd"} | (
            {"resumed": [{"commit": "ef"}]} if index == 1 else {}
        )
        (tmp_path / spec.folder_name / "environment.json").write_text(json.dumps(where))
    made = conduct(STUDY, tmp_path, train=False)["made_by"]
    assert made == [
        {"runs": 4, "resumed": 1, "commit": "ab"},
        {"runs": 2, "resumed": 0, "commit": "cd"},
    ]


def test_a_seed_whose_runs_were_not_made_alike_is_named_with_what_differs(tmp_path: Path) -> None:
    """Pairing takes out what a seed shares; the processor and the precision are no part of it."""
    carried_out(tmp_path, Fake())
    plan, _ = make_and_write_plan(STUDY, RunReader(tmp_path), QUIET)
    alike = {
        "processor": "A",
        "precision": "float32",
        "versions": {"torch": "2.14"},
        "system": "Linux",
    }
    changes: dict[str, dict[str, Any]] = {
        "cpsam0": {"precision": "bfloat16", "versions": {"torch": "2.15"}}
    }
    changes["none1"] = {"system": "Linux 2"}
    for spec in plan.runs:
        where = alike | changes.get(f"{spec.arm.name}{spec.seed}", {})
        (tmp_path / spec.folder_name / "environment.json").write_text(json.dumps(where))
    results = conduct(STUDY, tmp_path, train=False)
    assert results["unlike"] == {"0": ["precision", "versions"]}, (
        "of the kernel's name no result depends"
    )
    for form in ("report.md", "report.html"):
        assert (
            "seed 0 come from different environments: precision, versions differ"
            in (tmp_path / form).read_text()
        )
    for spec in plan.runs:
        (tmp_path / spec.folder_name / "environment.json").write_text(json.dumps(alike))
    assert conduct(STUDY, tmp_path, train=False)["unlike"] == {}
    assert "different environments" not in (tmp_path / "report.md").read_text()


def test_two_masters_share_the_runs_and_both_end_with_all(tmp_path: Path) -> None:
    """Threads of one process hold no lock against each other by process, but by open file, as
    processes do.
    """
    fakes, left = [Fake(), Fake()], []

    def master(fake: Fake) -> None:
        plan, _ = make_and_write_plan(STUDY, RunReader(tmp_path), QUIET)
        runs = [
            PlannedRun(spec, tmp_path / spec.folder_name, index, 6)
            for index, spec in enumerate(plan.runs)
        ]
        InProcess(fake, poll_seconds=0.01).run(runs, QUIET)
        left.append([read_run(run.folder).outcome is None for run in runs])

    threads = [threading.Thread(target=master, args=(fake,)) for fake in fakes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert left == [[False] * 6] * 2
    assert sorted(fakes[0].made + fakes[1].made) == sorted(statuses(conduct(STUDY, tmp_path)))


def test_secondary_p_are_adjusted_together_and_too_few_seeds_have_none(tmp_path: Path) -> None:
    few = carried_out(tmp_path / "few", Fake())
    assert all(
        contrast["p"] is None and contrast["p_holm"] is None for contrast in few["contrasts"]
    )
    assert "not enough seeds for a test: 2 pairs" in few["contrasts"][0]["note"]
    assert "Not enough seeds for a test" in (tmp_path / "few" / "report.html").read_text()


def test_the_control_that_comes_nearest_is_kept_beside_the_answer(tmp_path: Path) -> None:
    """Of the fake runs an arm has the more, the longer its name. A control with fewer pairs is no
    match for one with all.
    """
    arms = (
        "none",
        "non_local",
        "cpsam",
        "norm_only",
        "bare_fusion",
        "constant_gate",
        "conv_control",
    )
    wanted = replace(
        STUDY,
        settings=(
            Setting("last", Task(), arms),
            Setting("early", Task(at=("early",)), ("none", "conv_control")),
        ),
    )
    control = carried_out(tmp_path, Fake(), wanted)["control"]
    assert (control["arm"], control["of"], control["n"], control["fewer"]) == (
        "constant_gate @ last",
        4,
        2,
        [],
    )
    assert control["mean"] == pytest.approx(0.01 * (len("cpsam") - len("constant_gate")))
    broken = Fake(
        constant_gate1=RuntimeError("no memory"),
        norm_only0=RuntimeError("no memory"),
        norm_only1=RuntimeError("no memory"),
    )
    control = carried_out(tmp_path / "broken", broken, wanted)["control"]
    assert (control["arm"], control["of"], control["n"]) == ("conv_control @ last", 2, 2)
    assert control["fewer"] == ["norm_only @ last", "constant_gate @ last"]
    assert carried_out(tmp_path / "without", Fake())["control"] is None


def test_what_is_told_of_a_run_names_the_setting_where_another_has_such_an_arm(
    tmp_path: Path,
) -> None:
    settings = (*STUDY.settings, Setting("early", Task(at=("early",)), ("none", "cpsam")))
    told: set[str] = set()
    carried_out(
        tmp_path,
        Fake(),
        replace(STUDY, settings=settings),
        on_event=lambda event: told.add(event.get("arm", "")),
    )
    assert told - {""} == {
        "none",
        "non_local @ last",
        "cpsam @ last",
        "cpsam @ early",
    }, "the bare network is one run for both"
    told.clear()
    carried_out(tmp_path / "one", Fake(), on_event=lambda event: told.add(event.get("arm", "")))
    assert told - {""} == {"none", "non_local", "cpsam"}


def test_a_command_that_is_no_text_leaves_a_whole_set_of_reports(tmp_path: Path) -> None:
    carried_out(tmp_path, Fake(), command="cpsam study caf\udce9.toml")
    assert "cpsam study caf\\udce9.toml" in (tmp_path / "report.md").read_text()
    assert (
        len(list(tmp_path.glob("*.csv"))) == 3
        and "caf\\udce9" in (tmp_path / "report.html").read_text()
    )


def test_a_damaged_file_that_is_made_from_others_is_written_anew(tmp_path: Path) -> None:
    first = carried_out(tmp_path, Fake())
    for name in ("results.json", "plan.json"):
        (tmp_path / name).write_text('{"plan": NaN}')
    (tmp_path / "report.md").unlink()
    os.mkfifo(tmp_path / "report.md")
    (tmp_path / ".writing-report.html").symlink_to(tmp_path.parent / "outside")
    told: list[Event] = []
    again = carried_out(tmp_path, Fake(), on_event=told.append)
    renewed = [event["error"] for event in told if event["event"] == "renewed"]
    assert [str(tmp_path / "results.json") in error for error in renewed] == [True]
    assert again["plans"] == first["plans"] and json.loads((tmp_path / "results.json").read_text())[
        "seeds"
    ] == [0, 1]
    assert (tmp_path / "report.md").is_file() and not (tmp_path.parent / "outside").exists()
