"""Carries out a study: plans, brings each run to its end, and writes the report."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cpsam.config.study import Study
from cpsam.errors import StoppedError
from cpsam.files import write_atomically
from cpsam.report.formats import written_forms
from cpsam.report.results import Results
from cpsam.run.data import load_task
from cpsam.run.events import OnEvent, silent
from cpsam.run.spec import RunSpec
from cpsam.run.train_run import train_run
from cpsam.study.claim import writing
from cpsam.study.execute_run import PlannedRun, Train, forget_failure
from cpsam.study.executor import Executor, InProcess
from cpsam.study.history import (
    PLAN,
    history_until,
    make_and_write_plan,
    plan_identity,
    read_derived,
)
from cpsam.study.make_plan import Load
from cpsam.study.measure_arms import measure_arms
from cpsam.study.plan import Plan
from cpsam.study.process_executor import ProcessExecutor
from cpsam.study.records import WrittenPlan, WrittenResults
from cpsam.study.results import describe_setting, study_results
from cpsam.study.run_process import LoadAndTrain
from cpsam.study.run_reader import RunReader
from cpsam.study.runs_at_once import choose_runs_at_once
from cpsam.train.compute import choose_compute

RESULTS = "results.json"


def conduct(
    study: Study,
    folder: Path,
    *,
    executor: Executor | None = None,
    runs_at_once: int = 1,
    command: str = "",
    on_event: OnEvent = silent,
    retry_failed: bool = False,
    train: bool = True,
    load: Load | None = None,
) -> dict[str, Any]:
    """Carries out a study in a folder, and writes its results and report there.

    Runs that have ended are read, so the same call after an interruption continues the study. More
    seeds, arms or settings train only what is new.

    Args:
        study: What to compare.
        folder: Of the study; each run has a folder of its own in it, named by its content.
        executor: Who trains; by default this machine.
        runs_at_once: How many runs this machine executes at once, each in a process of its own, as
            :func:`cpsam.study.runs_at_once.choose_runs_at_once` reads it. 1 means this process.
        command: The command line to print in the report.
        on_event: Called with what happens, as small dicts whose ``event`` names it: "plan", those
            of :func:`cpsam.study.execute_run.execute_run` and of
            :func:`cpsam.train.train.train`.
        retry_failed: Try failed runs once more. A run that diverged would diverge again.
        train: False reports on what there is.
        load: Loads a task, as in :func:`cpsam.study.make_plan.make_plan`.

    Returns:
        The results as plain data. Whatever depends on the clock is under the one key ``timing``.

    Raises:
        UserError: If the configuration does not fit; nothing has been trained then.
        DataError: If data or weights are missing or damaged.
        StoppedError: If it was interrupted.
    """
    started = time.perf_counter()
    read = RunReader(folder)
    plan, history = make_and_write_plan(study, read, on_event, train, load)
    identity = plan_identity(plan.describe())
    names = [spec.folder_name for spec in plan.runs]
    if retry_failed:
        for name in names:
            forget_failure(folder / name)
        read = RunReader(folder)
    if executor is None:
        executor = local_executor(plan, choose_runs_at_once(runs_at_once, plan, read), load)
    on_event(opening(plan, read, executor.at_once if train else None))
    if train:
        try:
            ended = executor.run(planned_runs(plan, read), on_event)
        except KeyboardInterrupt:
            raise StoppedError("stopped between two runs, and the same command continues") from None
        runs = {name: ended[name] for name in names}
    else:
        runs = {name: read(name) for name in names}
    results: dict[str, Any] = {
        "command": command,
        **study_results(plan, runs),
        **measure_arms(plan, runs, on_event),
    }
    results["timing"]["total_seconds"] = time.perf_counter() - started
    results["timing"]["runs_at_once"] = executor.at_once if train else None
    with writing(folder):
        results |= {"plan": identity}
        results |= history_until(identity, folder, history) if train else history
        standing = plan_identity(read_derived(WrittenPlan, folder / PLAN, on_event))
        written = read_derived(WrittenResults, folder / RESULTS, on_event)
        results["overtaken"] = train and written.get("plan") == standing != identity
        if results["overtaken"]:
            results["warnings"].append(
                f"Another process changed the plan of this study meanwhile; {folder} keeps the"
                " report on that one."
            )
        else:
            write_results(results, folder)
    return results


def planned_runs(plan: Plan, read: RunReader) -> list[PlannedRun]:
    """Returns the runs of a plan, with those that have ended."""
    labels = plan.run_labels()
    runs = []
    for index, spec in enumerate(plan.runs):
        name = spec.folder_name
        ended = read.ended.get(name)
        runs.append(PlannedRun(spec, read.folder / name, index, len(labels), labels[name], ended))
    return runs


def opening(plan: Plan, read: RunReader, at_once: int | None) -> dict[str, Any]:
    """Returns the event that says what a study does, before it does anything.

    Args:
        plan: The study.
        read: Reads its runs.
        at_once: How many runs are executed at once; None if that is not known.
    """
    names, compute = [spec.folder_name for spec in plan.runs], choose_compute(plan.study.recipe)
    return {
        "event": "plan",
        "runs": len(names),
        "ended": sum(read.has_ended(name) for name in names),
        "at_once": at_once,
        "seeds": list(plan.study.seeds),
        "folder": str(read.folder),
        "settings": [
            {
                **describe_setting(name, loaded),
                "weights": loaded.task.weights and str(loaded.task.weights),
                "heads": list(plan.heads[name]),
            }
            for name, loaded in plan.loaded.items()
        ],
        "computes": {**asdict(compute), "threads": plan.study.threads or compute.threads},
    }


def local_executor(plan: Plan, at_once: int, load: Load | None) -> Executor:
    """Returns an executor on this machine.

    Args:
        plan: The study.
        at_once: How many runs to execute at once.
        load: Loads a task in another process.
    """
    if at_once == 1:
        return InProcess(train_here(plan))
    return ProcessExecutor(at_once, LoadAndTrain(load or load_task), train_here(plan))


def train_here(plan: Plan) -> Train:
    """Returns a function that trains a run on the data that the plan has loaded.

    The data are found by the task. Images at two sizes, under two transforms, or scaled for a
    pretrained network have the same fingerprint.
    """
    by_task = {loaded.task: loaded for loaded in plan.loaded.values()}

    def train(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        return train_run(spec, by_task[spec.task], folder, on_event)

    return train


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Writes every form of the report."""
    files = {
        RESULTS: json.dumps(results, indent=1, allow_nan=False) + "\n",
        **written_forms(Results.from_json(results)),
    }
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
