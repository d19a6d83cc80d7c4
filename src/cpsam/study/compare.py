"""Carry out a study: plan, bring each run to its end, put the numbers side by side."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cpsam.config.study import Comparison, Study
from cpsam.errors import DataError, StoppedError, UserError
from cpsam.files import read_json, remove_leftovers, write_atomically, write_json
from cpsam.report.formats import written_forms
from cpsam.report.results import Results
from cpsam.run.arm import BARE
from cpsam.run.cost import LATENCY_BATCH, MEMORY_BATCH, latencies, training_memory
from cpsam.run.data import LoadedTask
from cpsam.run.events import OnEvent, silent
from cpsam.run.spec import RunSpec
from cpsam.run.train_run import train_run
from cpsam.study.executor import Executor, InProcess
from cpsam.study.plan import Plan, make_plan
from cpsam.study.records import History, WrittenPlan, WrittenResults
from cpsam.study.results import RunRecord, describe_setting, read_runs, study_results
from cpsam.study.run_end import Job, claimed, forget_failure, outcome
from cpsam.text import shorten
from cpsam.train.compute import choose_compute, find_device
from cpsam.train.environment import environment
from cpsam.typed import STUDY_BYTES, checked, expect, read_record

PLAN, HISTORY, BUDGET, RESULTS, LOCK = (
    "plan.json",
    "plans.json",
    "budget.json",
    "results.json",
    ".writing",
)


def compare(
    comparison: Comparison,
    *,
    command: str = "",
    on_event: OnEvent = silent,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Train each arm with each seed, one run after the other, and write the comparison beside the
    runs; see :func:`conduct`.
    """
    return conduct(
        comparison.study(),
        comparison.folder,
        command=command,
        on_event=on_event,
        retry_failed=retry_failed,
    )


def conduct(
    study: Study,
    folder: Path,
    *,
    executor: Executor | None = None,
    command: str = "",
    on_event: OnEvent = silent,
    retry_failed: bool = False,
    train: bool = True,
) -> dict[str, Any]:
    """Carry out a study in a folder, and write its results and report there.

    Runs that have an end already are read, so the same call after an interruption continues it, and
    a study that was given more seeds, arms or settings trains those alone.

    Args:
        study: What to compare.
        folder: Of the study; each run has a folder of its own in it, named by its content.
        executor: Who trains; by default this process, one run after the other.
        command: The command line to print in the report.
        on_event: Called with what happens, as small dicts whose ``event`` names it: "plan", those
            of :func:`cpsam.study.run_end.attempt` and of :func:`cpsam.train.train.train`.
        retry_failed: Try failed runs once more. One that diverged would diverge again.
        train: False reports on what there is.

    Returns:
        The results as plain data; all that depends on the clock is under the one key ``timing``.

    Raises:
        UserError: If the configuration does not fit; nothing has been trained then.
        DataError: If data or weights are missing or damaged.
        StoppedError: If it was interrupted.
    """
    started = time.perf_counter()
    plan, history = settle_plan(study, folder, on_event, keep=train)
    mine = identity(plan.describe())
    labels = plan.run_labels()
    jobs = [
        Job(spec, folder / (name := spec.folder_name), index, len(labels), labels[name])
        for index, spec in enumerate(plan.runs)
    ]
    if retry_failed:
        for job in jobs:
            forget_failure(job.folder)
    on_event(opening(plan, folder))
    if train:
        try:
            (executor or InProcess(trainer(plan))).run(jobs, on_event)
        except KeyboardInterrupt:
            raise StoppedError("stopped between two runs, and the same command continues") from None
    runs = read_runs(plan, folder)
    results: dict[str, Any] = {
        "command": command,
        **study_results(plan, runs),
        **measured_here(plan, runs, on_event),
    }
    results["timing"]["total_seconds"] = time.perf_counter() - started
    with alone(folder):
        results |= {"plan": mine, **(history_of(mine, folder, history) if train else history)}
        standing = identity(read_derived(WrittenPlan, folder / PLAN, on_event))
        written = read_derived(WrittenResults, folder / RESULTS, on_event)
        results["overtaken"] = train and written.get("plan") == standing != mine
        if results["overtaken"]:
            results["warnings"].append(
                f"Another process changed the plan of this study meanwhile; {folder} keeps the"
                " report on that one."
            )
        else:
            write_results(results, folder)
    return results


def opening(plan: Plan, folder: Path) -> dict[str, Any]:
    """Returns the event that says what a study does, before it does anything."""
    names, compute = [spec.folder_name for spec in plan.runs], choose_compute(plan.study.recipe)
    return {
        "event": "plan",
        "runs": len(names),
        "ended": sum(outcome(folder / name) is not None for name in names),
        "seeds": list(plan.study.seeds),
        "folder": str(folder),
        "settings": [
            {
                **describe_setting(name, loaded),
                "weights": loaded.task.weights and str(loaded.task.weights),
                "heads": heads(loaded),
            }
            for name, loaded in plan.loaded.items()
        ],
        "computes": {**asdict(compute), "threads": plan.study.threads or compute.threads},
    }


def heads(loaded: LoadedTask) -> list[str]:
    """Returns a line per classifier of pretrained weights: whether it starts anew. Without weights,
    nothing is to be said.
    """
    if loaded.task.weights is None:
        return []
    notes: list[str] = []
    loaded.build(
        BARE,
        seed=0,
        on_event=lambda event: notes.append(event["text"].removeprefix("weights: ")),
    )
    return [note for note in notes if note.startswith("classifier")] or ["its classifier is kept"]


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Writes every form of the report."""
    files = {
        RESULTS: json.dumps(results, indent=1, allow_nan=False) + "\n",
        **written_forms(Results.from_json(results)),
    }
    for name, text in files.items():
        write_atomically(folder / name, text.encode())


def trainer(plan: Plan) -> Any:
    """Trains a run on the data that the plan has loaded.

    They are found by the task: pictures at two sizes, under two transforms, or scaled for a
    pretrained network have one fingerprint.
    """
    by_task = {loaded.task: loaded for loaded in plan.loaded.values()}

    def execute(spec: RunSpec, folder: Path, on_event: OnEvent) -> dict[str, Any]:
        return train_run(spec, by_task[spec.task], folder, on_event)

    return execute


def settle_plan(
    study: Study, folder: Path, on_event: OnEvent, keep: bool = True
) -> tuple[Plan, dict[str, Any]]:
    """Make the plan and write it down before anything runs; of two processes that plan at once,
    both take the same.

    Args:
        study: What is asked for.
        folder: Of the study.
        on_event: Told of loading.
        keep: False leaves the plan that is written there as it is, for who only looks.

    Returns:
        The plan, and its history: under ``plans`` what it said each time that it changed; nothing
        for a comparison, which has no name.
    """
    known = known_epochs(folder)
    plan = make_plan(study, on_event, known)
    keep = keep or not (folder / PLAN).exists()
    with alone(folder):
        there = known_epochs(folder)
        if any(there.get(key, epochs) != epochs for key, epochs in known.items()):
            known |= there
            plan = make_plan(study, on_event, known)
        described = plan.describe()
        history = read_history(described, folder) if study.name else {}
        if keep:
            if known != there:
                write_json(folder / BUDGET, {**there, **known})
            if history:
                write_json(folder / HISTORY, history)
            write_json(folder / PLAN, described)
    return plan, history


def known_epochs(folder: Path) -> dict[str, int]:
    """Returns what a budget of time came to when the study began.

    Raises:
        DataError: If the file is damaged. It names the runs, so it cannot be written anew.
    """
    content = checked(
        dict[str, int], read_json(folder / BUDGET, STUDY_BYTES) or {}, str(folder / BUDGET)
    )
    for name, epochs in content.items():
        expect(
            epochs >= 1,
            "a number of epochs, at least 1",
            epochs,
            f"{folder / BUDGET}: {shorten(name)}",
        )
    return content


def known_plans(folder: Path) -> list[dict[str, Any]]:
    """Returns what the plan of the study said each time that it changed.

    Raises:
        DataError: If the file is damaged. It says what was asked before anything ran, so it is not
            written anew.
    """
    found = read_record(History, folder / HISTORY)
    return [] if found is None else found[1]["plans"]


def read_derived(kind: type[Any], path: Path, on_event: OnEvent) -> dict[str, Any]:
    """Returns the content of a file that is made from others; nothing if it is missing, or damaged:
    then it is written anew.
    """
    try:
        found = read_record(kind, path)
    except DataError as error:
        on_event({"event": "renewed", "error": str(error)})
        return {}
    return {} if found is None else found[1]


def read_history(described: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the plan said each time it changed, with how many of its runs had ended by then: seeds
    that were added later are seen.

    Args:
        described: The plan as it is now, which comes last.
        folder: Of the study.

    Raises:
        UserError: If the primary contrast is not the one that the study began with.
    """
    history = known_plans(folder)
    entry = {
        key: described[key] for key in ("primary", "contrasts", "seeds", "budget", "recipe", "arms")
    }
    entry |= {"runs": sorted(described["runs"])}
    if history and history[0]["primary"] != entry["primary"]:
        was, now = (
            " against ".join(each["primary"][:2]) + f" in {each['primary'][2]}"
            for each in (history[0], entry)
        )
        raise UserError(
            f"the study in {folder} was begun to answer {was}, and its plan now says {now}; another"
            " question needs another name"
        )
    if history and identity(history[-1]) == identity(entry):
        return {"plans": history}
    ended = sum(
        outcome(folder / name) is not None for earlier in history[-1:] for name in earlier["runs"]
    )
    return {"plans": [*history, {**entry, "ended_before": ended}]}


def history_of(mine: str, folder: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """The history up to the last time that the plan was this one: others may have changed it and
    changed it back meanwhile.

    Args:
        mine: The identity of the plan.
        folder: Of the study.
        begun: The history as it was when the plan was settled.
    """
    history = known_plans(folder)
    ends = [index + 1 for index, entry in enumerate(history) if identity(entry) == mine]
    return {"plans": history[: ends[-1]]} if begun and ends else begun


def identity(described: dict[str, Any]) -> str:
    """Of a plan, or of what the history keeps of one, what makes it another, which no order of
    seeds or questions does.
    """
    values = [
        described.get("primary"),
        described.get("budget"),
        *(sorted(described.get(key, ())) for key in ("contrasts", "seeds", "runs")),
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time writes the files of the study."""
    while True:
        with claimed(folder / LOCK) as ours:
            if ours:
                remove_leftovers(folder)
                yield
                return
        time.sleep(0.05)


def measured_here(plan: Plan, runs: Mapping[str, RunRecord], on_event: OnEvent) -> dict[str, Any]:
    """The environment, latencies, all arms of a setting in turn, and memory."""
    on_event({"event": "latency"})
    before = torch.get_num_threads()
    torch.set_num_threads(plan.study.threads or before)
    try:
        compute, device = choose_compute(plan.study.recipe), find_device()
        times: dict[str, Any] = {}
        for name, loaded in plan.loaded.items():
            arms = {plan.label(name, arm.arm.name): arm for arm in plan.arms if arm.setting == name}
            models = {label: loaded.build(arm.arm, seed=0) for label, arm in arms.items()}
            measured = latencies(models, loaded.dataset, compute)
            for label, model in models.items():
                memory = training_memory(model, loaded.dataset, compute)
                times[label] = {
                    "latency_ms": measured[label],
                    "peak_memory_bytes": memory,
                    "train_seconds": [runs[spec.folder_name].seconds for spec in arms[label].specs],
                }
        timing = {"arms": times, "batch_size": LATENCY_BATCH, "memory_batch_size": MEMORY_BATCH}
        return {"environment": environment(compute, device), "timing": timing}
    finally:
        torch.set_num_threads(before)
