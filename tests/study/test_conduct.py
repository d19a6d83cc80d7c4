"""What a study keeps through failures, changes of its plan, and several masters."""

import fcntl
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import add_epoch, begin, finish

import cpsam.study.conduct as study_conduct
from cpsam.config.recipe import Recipe
from cpsam.config.study import Contrast, NamedArm, Setting, Study
from cpsam.config.task import Task
from cpsam.errors import DataError, DivergedError, StoppedError, UserError
from cpsam.run.arm import Arm
from cpsam.run.events import Event, OnEvent
from cpsam.run.records import StoredRun, read_run
from cpsam.run.spec import RunSpec
from cpsam.study.conduct import conduct
from cpsam.study.execute_run import PlannedRun, count_death, execute_run, forget_failure
from cpsam.study.executor import InProcess
from cpsam.study.history import known_epochs, known_plans, settle_plan
from cpsam.study.run_reader import RunReader

STUDY = Study(
    name="kept",
    settings=(Setting("last", Task(), ("none", "non_local", "cpsam")),),
    seeds=(0, 1),
    recipe=Recipe(epochs=1),
    control=False,
)
QUIET: OnEvent = lambda event: None  # noqa: E731


@pytest.fixture(autouse=True)
def without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency and memory have tests of their own, and take longer than all that is asked here."""
    monkeypatch.setattr(
        study_conduct,
        "measure_arms",
        lambda plan, runs, on_event: {"environment": {}, "timing": {"arms": {}}},
    )


class Fake:
    """An `execute` that ends runs at once, those named in `errors` by that error."""

    def __init__(self, **errors: Exception) -> None:
        self.errors, self.made = errors, []

    def __call__(self, spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        self.made.append(f"{spec.arm.name}{spec.seed}")
        folder.mkdir(exist_ok=True)
        if (error := self.errors.get(self.made[-1])) is not None:
            raise error
        value = 0.5 + 0.01 * len(spec.arm.name) + 0.001 * spec.seed**2
        return finish(spec, folder, top1=value)


def carried_out(folder: Path, fake: Fake, study: Study = STUDY, **options: Any) -> dict[str, Any]:
    return conduct(study, folder, executor=InProcess(fake), **options)


def statuses(results: dict[str, Any]) -> dict[str, str]:
    return {
        f"{arm['arm']}{run['seed']}": run["status"]
        for arm in results["arms"]
        for run in arm["runs"]
    }


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


def test_the_plan_is_written_before_anything_runs_and_each_change_is_kept(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        carried_out(tmp_path, Fake(none0=StoppedError("stopped")))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (
        plan["seeds"] == [0, 1]
        and plan["primary"] == ["cpsam", "non_local", "last"]
        and len(plan["runs"]) == 6
    )
    carried_out(tmp_path, Fake())
    results = carried_out(tmp_path, Fake(), replace(STUDY, seeds=(0, 1, 5)))
    assert [
        (each["seeds"], len(each["runs"]), each["ended_before"]) for each in results["plans"]
    ] == [([0, 1], 6, 0), ([0, 1, 5], 9, 6)]
    assert "1 more seed (5) and 3 more runs." in (tmp_path / "report.md").read_text()
    again = carried_out(tmp_path, Fake(), replace(STUDY, seeds=(0, 1, 5)))
    assert again["plans"] == results["plans"]
    carried_out(tmp_path, Fake(), replace(STUDY, seeds=(1, 5)))
    assert (
        "after 9 of its 9 runs had ended: 1 fewer seed (0) and 3 fewer runs."
        in (tmp_path / "report.md").read_text()
    )


def test_the_same_plan_in_another_order_is_no_change_of_it(tmp_path: Path) -> None:
    contrasts = (Contrast("cpsam", "none", "last"), Contrast("non_local", "none", "last"))
    first = carried_out(tmp_path, Fake(), replace(STUDY, contrasts=contrasts))
    turned = carried_out(
        tmp_path, Fake(), replace(STUDY, seeds=STUDY.seeds[::-1], contrasts=contrasts[::-1])
    )
    assert turned["plans"] == first["plans"] and len(first["plans"]) == 1
    fewer = carried_out(
        tmp_path, Fake(), replace(STUDY, seeds=STUDY.seeds[::-1], contrasts=contrasts[:1])
    )
    assert len(fewer["plans"]) == 2
    assert (
        "of its 6 runs had ended: other secondary contrasts."
        in (tmp_path / "report.md").read_text()
    )


def test_a_change_of_the_plan_is_told_by_what_changed(tmp_path: Path) -> None:
    narrow = NamedArm("narrow", "cpsam", {"reduction": 4})
    with_it = replace(
        STUDY, settings=(Setting("last", Task(), ("none", "non_local", "cpsam", narrow)),)
    )
    faster = replace(with_it, recipe=Recipe(epochs=1, lr=0.05))
    wider = replace(narrow, arguments={"reduction": 2}, recipe={"momentum": 0.5})
    other = replace(
        faster, settings=(Setting("last", Task(), ("none", "non_local", "cpsam", wider)),)
    )
    for plan in (STUDY, with_it, faster, other, replace(STUDY, recipe=faster.recipe)):
        carried_out(tmp_path, Fake(), plan)
    told = [
        line.rpartition("had ended: ")[2]
        for line in (tmp_path / "report.md").read_text().splitlines()
        if "had ended: " in line
    ]
    assert told == [
        "1 more arm (narrow in last) and 2 more runs.",
        "8 more runs, 8 fewer runs and recipe (lr 0.05 instead of 0.1).",
        (
            "2 more runs, 2 fewer runs and narrow in last (reduction 2 instead of 4, momentum 0.5"
            " instead of \N{EN DASH})."
        ),
        "1 fewer arm (narrow in last) and 2 fewer runs.",
    ]


def test_a_look_at_a_study_changes_nothing_but_the_report(tmp_path: Path) -> None:
    carried_out(tmp_path, Fake())
    kept = {path: path.read_bytes() for path in tmp_path.rglob("plan*.json")}
    results = conduct(replace(STUDY, seeds=(0,)), tmp_path, train=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("plan*.json")} == kept
    assert (
        results["seeds"] == [0]
        and "1 fewer seed (1) and 3 fewer runs." in (tmp_path / "report.md").read_text()
    ), "and it is told"
    carried_out(tmp_path, Fake())
    assert "The plan was changed" not in (tmp_path / "report.md").read_text()


def test_a_plan_that_another_process_made_meanwhile_keeps_its_report(tmp_path: Path) -> None:
    wider = replace(STUDY, seeds=(0, 1, 5))

    class Overtaken(InProcess):
        def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
            ended = super().run(runs, on_event)
            carried_out(tmp_path, Fake(), wider)
            return ended

    results = conduct(STUDY, tmp_path, executor=Overtaken(Fake()))
    assert results["overtaken"] is True
    assert results["seeds"] == [0, 1] and [each["seeds"] for each in results["plans"]] == [[0, 1]]
    assert results["warnings"][-1].startswith(
        "Another process changed the plan of this study meanwhile"
    )
    assert json.loads((tmp_path / "results.json").read_text())["seeds"] == [0, 1, 5]
    assert "1 more seed (5) and 3 more runs." in (tmp_path / "report.md").read_text()


def test_a_plan_that_was_only_begun_elsewhere_holds_no_report_back(tmp_path: Path) -> None:
    class Begun(InProcess):
        def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
            ended = super().run(runs, on_event)
            with pytest.raises(StoppedError):
                carried_out(
                    tmp_path, Fake(none5=StoppedError("stopped")), replace(STUDY, seeds=(5, 0, 1))
                )
            return ended

    results = conduct(STUDY, tmp_path, executor=Begun(Fake()))
    assert not results["overtaken"] and json.loads((tmp_path / "results.json").read_text())[
        "seeds"
    ] == [0, 1]
    carried_out(tmp_path, Fake(), replace(STUDY, seeds=(5, 0, 1)))
    assert json.loads((tmp_path / "results.json").read_text())["seeds"] == [5, 0, 1]


def test_what_others_changed_and_changed_back_meanwhile_is_told(tmp_path: Path) -> None:
    class Meanwhile(InProcess):
        def run(self, runs: Sequence[PlannedRun], on_event: OnEvent) -> Mapping[str, StoredRun]:
            ended = super().run(runs, on_event)
            for seeds in ((0, 1, 5), (1, 0)):
                carried_out(tmp_path, Fake(), replace(STUDY, seeds=seeds))
            return ended

    results = conduct(STUDY, tmp_path, executor=Meanwhile(Fake()))
    assert not results["overtaken"] and [each["seeds"] for each in results["plans"]] == [
        [0, 1],
        [0, 1, 5],
        [1, 0],
    ]
    assert (
        "1 more seed (5)" in (tmp_path / "report.md").read_text()
        and "1 fewer seed (5)" in (tmp_path / "report.md").read_text()
    )


def test_the_question_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    carried_out(tmp_path, Fake())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError,
        match=(
            r"cpsam against non_local in last, .* cpsam against none in last; another question"
            r" needs"
        ),
    ):
        carried_out(tmp_path, Fake(), replace(STUDY, primary=Contrast("cpsam", "none", "last")))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_report_in_between_counts_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        carried_out(tmp_path, Fake(none1=StoppedError("stopped")))
    results = conduct(STUDY, tmp_path, train=False)
    assert list(statuses(results).values()).count("missing") == 3
    assert "6 runs: 3 done, 3 missing" in (tmp_path / "report.md").read_text()


def test_a_report_reads_the_whole_lines_of_a_run_that_is_being_written(tmp_path: Path) -> None:
    spec = next(iter(settle_plan(STUDY, RunReader(tmp_path), QUIET)[0].runs))
    add_epoch(begin(spec, tmp_path / spec.folder_name))
    with (tmp_path / spec.folder_name / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "top1": 0.6, "tra')
    results = conduct(STUDY, tmp_path, train=False)
    assert results["arms"][0]["runs"][0]["curve"] == {"top1": [0.5], "train_loss": [2.0]}


def test_finished_runs_are_counted_by_where_they_were_made(tmp_path: Path) -> None:
    results = carried_out(tmp_path, Fake())
    assert results["made_by"] == [], "these runs left no word of it"
    plan, _ = settle_plan(STUDY, RunReader(tmp_path), QUIET)
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
    plan, _ = settle_plan(STUDY, RunReader(tmp_path), QUIET)
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
        plan, _ = settle_plan(STUDY, RunReader(tmp_path), QUIET)
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


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"plans": 3}',
        '{"plans": [{}]}',
        '{"plans": [null]}',
        '{"plans": [{"primary": "cpsam"}]}',
    ],
)
def test_a_damaged_history_is_named_and_kept(tmp_path: Path, content: str) -> None:
    """It says what was asked before anything ran."""
    (tmp_path / "plans.json").write_text(content)
    with pytest.raises(DataError, match=r"plans\.json"):
        known_plans(tmp_path)
    assert (tmp_path / "plans.json").read_text() == content


@pytest.mark.parametrize(
    "content",
    [
        '{"a": 0}',
        '{"a": "2"}',
        '{"a": 1.5}',
        '{"a": true}',
        '{"a": null}',
        f'{{"a": {10**29}}}',
        "[",
        "NaN",
    ],
)
def test_a_damaged_budget_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "budget.json").write_text(content)
    with pytest.raises(DataError, match=r"budget\.json"):
        known_epochs(tmp_path)


def die(folder: Path, times: int, reached: str = "") -> None:
    """A process dies at the run in this folder so many times."""
    for _ in range(times):
        count_death(folder)
        if reached:
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "LATEST").write_text(reached)


def one_job(folder: Path) -> PlannedRun:
    spec = RunSpec(Task(), "f", (0.5,), (0.5,), None, Arm("none", "none"), 0, Recipe(), 1)
    return PlannedRun(spec, folder / spec.folder_name, 0, 1)


def test_a_run_that_killed_its_process_three_times_has_failed_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    run, fake = one_job(tmp_path), Fake()
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
    run = one_job(tmp_path)
    die(run.folder, 2)
    with pytest.raises(type(error)):
        execute_run(run, Fake(none0=error), QUIET)  # pyrefly: ignore
    assert not (run.folder / ".attempts").exists()


def test_a_run_that_gets_ahead_between_two_deaths_goes_on(tmp_path: Path) -> None:
    run, fake = one_job(tmp_path), Fake()
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
    assert count_death(tmp_path) == 0 and count_death(tmp_path) == 1
