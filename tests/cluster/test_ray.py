"""A study on Ray, which is really started: ``make test-cluster``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import finish

from cpsam.config.recipe import Recipe
from cpsam.config.study import Setting, Study
from cpsam.config.task import Task
from cpsam.errors import DataError, UserError
from cpsam.run.events import OnEvent
from cpsam.run.records import read_run
from cpsam.run.spec import RunSpec
from cpsam.study.conduct import conduct
from cpsam.study.dispatch import worker_environment
from cpsam.study.execute_run import PlannedRun
from cpsam.study.executor import InProcess
from cpsam.study.make_plan import make_plan
from cpsam.study.ray_executor import RayExecutor

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

Event = dict[str, Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a head on this machine with two cores, whatever the machine has."""
    import ray

    for module in (__name__, "support.finished_runs"):  # workers cannot import a test
        ray.cloudpickle.register_pickle_by_value(sys.modules[module])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = ray.init(
        address="local",
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield started["gcs_address"]
    ray.shutdown()


def study(**changes: Any) -> Study:
    options = {"seeds": (0, 4), "recipe": Recipe(epochs=2, lr=0.1), **changes}
    setting = Setting("last", Task(), ("none", "non_local", "cpsam"))
    return Study(name="small", settings=(setting,), **options)


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on the clock, and on whether someone edits the source while
    tests run.
    """
    return {
        key: value
        for key, value in results.items()
        if key not in ("timing", "environment", "made_by", "unlike")
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return timeless(conduct(study(), tmp_path_factory.mktemp("alone")))


def runs(folder: Path, seeds: tuple[int, ...] = (0, 1, 2, 3)) -> list[PlannedRun]:
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(
        Study(
            name="fake",
            settings=(Setting("last", Task(), ("none",)),),
            seeds=seeds,
            recipe=Recipe(epochs=1),
        ),
        lambda event: None,
    )
    return [
        PlannedRun(spec, folder / spec.folder_name, index, len(seeds))
        for index, spec in enumerate(plan.runs)
    ]


def fake(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Ends at once, and notes that it was called."""
    folder.mkdir(exist_ok=True)
    with (folder / ".calls").open("a") as calls:
        calls.write("x")
    if (folder / ".hang").exists() and len((folder / ".calls").read_text()) <= int(
        (folder / ".hang").read_text()
    ):
        on_event({"event": "hanging"})
        time.sleep(120)
    return finish(spec, folder, environment=dict(os.environ))


def kill_who_hangs(events: list[Event]) -> OnEvent:
    def on_event(event: Event) -> None:
        events.append(event)
        if event["event"] == "hanging":
            os.kill(event["pid"], signal.SIGKILL)

    return on_event


def test_a_study_on_ray_ends_as_one_in_this_process(
    cluster: str, alone: dict[str, Any], tmp_path: Path
) -> None:
    events: list[Event] = []
    results = conduct(study(), tmp_path, executor=RayExecutor(), on_event=events.append)
    assert timeless(results) == alone
    told = [event for event in events if event["event"] == "epoch"]
    assert len(told) == 2 * 4 * 2
    assert {event["node"] for event in told} == {os.uname().nodename}
    assert {event["pid"] for event in told}.isdisjoint({os.getpid()})
    environment = json.loads(next(tmp_path.glob("cpsam-*/environment.json")).read_text())
    assert environment["threads"] == 1


def test_the_run_of_a_killed_worker_goes_on_and_no_other_is_repeated(
    cluster: str, alone: dict[str, Any], tmp_path: Path
) -> None:
    events: list[Event] = []

    def kill_once(event: Event) -> None:
        events.append(event)
        killed = any(earlier["event"] == "killed" for earlier in events)
        if event["event"] == "epoch" and event["epoch"] == 1 and event["index"] == 3 and not killed:
            os.kill(event["pid"], signal.SIGKILL)
            events.append({"event": "killed"})

    results = conduct(
        study(recipe=Recipe(epochs=2, lr=0.1)), tmp_path, executor=RayExecutor(), on_event=kill_once
    )
    assert timeless(results) == alone
    assert [event["deaths"] for event in events if event["event"] == "died"] == [1]
    finished = [
        event["run"] for event in events if event["event"] == "finished" and not event["read"]
    ]
    assert sorted(finished) == sorted(set(finished))
    assert len(finished) == 8


def test_a_run_whose_workers_all_die_has_failed_and_stays_in_the_table(
    cluster: str, tmp_path: Path
) -> None:
    todo, events = runs(tmp_path), []
    for run, calls in zip(todo, (0, 9, 2, 0), strict=True):
        run.folder.mkdir()
        (run.folder / ".hang").write_text(str(calls))
    RayExecutor(train=fake, retries=2, poll_seconds=0.2).run(todo, kill_who_hangs(events))
    ends = [read_run(run.folder).outcome for run in todo]
    assert [end.status for end in ends if end] == ["done", "failed", "done", "done"]
    assert ends[1] is not None and "its worker died 3 times" in (ends[1].error or "")
    assert [(run.folder / ".calls").read_text() for run in todo] == ["x", "xxx", "xxx", "x"]
    assert [
        event["index"] for event in events if event["event"] == "failed" or event["event"] == "kept"
    ] == [1]


def test_what_has_ended_is_read_and_costs_no_worker(cluster: str, tmp_path: Path) -> None:
    InProcess(fake).run(runs(tmp_path, (0, 1)), lambda event: None)
    events: list[Event] = []
    todo = runs(tmp_path)
    RayExecutor(train=fake).run(todo, events.append)
    assert [(event["index"], event["read"]) for event in events if event["event"] == "finished"][
        :2
    ] == [(0, True), (1, True)]
    assert all((run.folder / ".calls").read_text() == "x" for run in todo)


def test_workers_have_the_threads_of_the_run_and_wait_short(cluster: str, tmp_path: Path) -> None:
    todo = runs(tmp_path, (5,))
    RayExecutor(train=fake).run(todo, lambda event: None)
    environment = json.loads((todo[0].folder / "summary.json").read_text())["environment"]
    assert worker_environment(1).items() <= environment.items()
    assert environment["OMP_NUM_THREADS"] == "1"


def test_a_run_that_no_node_can_hold_is_refused_at_once(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no node has the 3 cores and 0 GPUs .* 2 cores, 0 GPUs"):
        RayExecutor(train=fake, cpus=3).run(runs(tmp_path), lambda event: None)
    with pytest.raises(UserError, match=r"0\.5 GPUs"):
        RayExecutor(train=fake, gpus=0.5).run(runs(tmp_path), lambda event: None)
    RayExecutor(train=fake, cpus=0.25).run(runs(tmp_path, (1,)), lambda event: None)


def test_a_mistake_of_the_person_ends_the_study_as_in_one_process(
    cluster: str, tmp_path: Path
) -> None:
    todo = runs(tmp_path / "study")
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"must be on storage that all nodes share"):
        RayExecutor(train=fake).run(todo, lambda event: None)


def test_data_that_cannot_be_read_stops_the_study_and_ends_no_run(
    cluster: str, tmp_path: Path
) -> None:
    def elsewhere(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        if spec.seed == 2:
            raise DataError("the data on node 7 is not that of the plan")
        return fake(spec, folder, on_event)

    todo = runs(tmp_path)
    with pytest.raises(DataError, match="node 7"):
        RayExecutor(train=elsewhere).run(todo, lambda event: None)
    assert read_run(todo[2].folder).outcome is None
    RayExecutor(train=fake).run(todo, lambda event: None)
    assert all(read_run(run.folder).done for run in todo)


def test_a_run_that_another_master_is_at_is_left_to_it_and_taken_when_it_dies(
    cluster: str, tmp_path: Path
) -> None:
    todo = runs(tmp_path)
    todo[0].folder.mkdir()
    holder = subprocess.Popen(
        ["flock", todo[0].folder / ".claim", "sleep", "100"], start_new_session=True
    )
    time.sleep(0.5)
    seen: list[Event] = []

    def release(event: Event) -> None:
        seen.append(event)
        if sum(earlier["event"] == "finished" for earlier in seen) == 3:
            os.killpg(holder.pid, signal.SIGKILL)

    RayExecutor(train=fake, poll_seconds=0.2).run(todo, release)
    holder.wait()
    assert [event["index"] for event in seen if event["event"] == "finished"][-1] == 0
    assert [(run.folder / ".calls").read_text() for run in todo] == ["x"] * 4


def test_killed_with_its_cluster_and_started_again_the_command_line_ends_the_study(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'name = "small"\nseeds = [0, 4]\nrecipe = { epochs = 2, lr = 0.1 }\n[[setting]]\nname ='
        ' "last"\narms = ["none", "non_local", "cpsam"]\n'
    )
    words = [
        sys.executable,
        "-m",
        "cpsam.cli",
        "study",
        str(plan),
        "--out",
        str(tmp_path),
        "--executor",
        "ray",
        "--json",
    ]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (
        len(list(tmp_path.glob("small/*/summary.json"))) < 2
        and child.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("small/*/summary.json")}
    assert 2 <= len(before) < 8
    again = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    results = timeless(json.loads(again.stdout))
    assert {**results, "command": ""} == alone
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())


def test_no_cluster_at_an_address_is_answered_in_one_line() -> None:
    code = (
        "from cpsam.cli import main; main(['study', 'docs/results/pilot/plan.toml', '--executor',"
        " 'ray', '--address', '127.0.0.1:1'])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert told.returncode == 2, told.stderr
    assert told.stderr.splitlines()[-1].startswith("cpsam: no Ray cluster at 127.0.0.1:1")
