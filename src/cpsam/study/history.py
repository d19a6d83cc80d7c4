"""Writes down the plan of a study before anything runs, and each change of it."""

from pathlib import Path
from typing import Annotated, Any

from cpsam.config.study import Study
from cpsam.errors import DataError, UserError
from cpsam.files import hash_json, read_json, write_json
from cpsam.run.events import OnEvent
from cpsam.study.claim import writing
from cpsam.study.make_plan import Load, make_plan
from cpsam.study.plan import Plan
from cpsam.study.records import History, WrittenPlan, WrittenResults
from cpsam.study.run_reader import RunReader
from cpsam.typed import STUDY_BYTES, Range, checked, read_record

PLAN, HISTORY, BUDGET = "plan.json", "plans.json", "budget.json"


def make_and_write_plan(
    study: Study,
    read: RunReader,
    on_event: OnEvent,
    keep: bool = True,
    load: Load | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """Makes the plan and writes it down. Two processes that plan at once take the same plan.

    Args:
        study: What is asked for.
        read: Reads the runs of the study in its folder.
        on_event: Told of loading.
        keep: False leaves a plan that is written there as it is.
        load: Loads a task, as in :func:`cpsam.study.make_plan.make_plan`.

    Returns:
        The plan, and its history: under ``plans`` every version of it. A
        comparison has no name, and so no history.
    """
    folder = read.folder
    known = known_epochs(folder)
    plan = make_plan(study, on_event, known, load)
    keep = keep or not (folder / PLAN).exists()
    with writing(folder):
        written = known_epochs(folder)
        if any(written.get(key, epochs) != epochs for key, epochs in known.items()):
            known |= written
            plan = make_plan(study, on_event, known, load)
        described = plan.describe()
        history = extended_history(described, read) if study.name else {}
        if keep:
            if known != written:
                write_json(folder / BUDGET, {**written, **known})
            if history:
                write_json(folder / HISTORY, history)
            write_json(folder / PLAN, described)
    return plan, history


def known_epochs(folder: Path) -> dict[str, int]:
    """Returns the numbers of epochs that a budget of time came to when the study began.

    Raises:
        DataError: If the file is damaged. It names the runs, so it is not overwritten.
    """
    path = folder / BUDGET
    content = read_json(path, STUDY_BYTES) or {}
    return checked(dict[str, Annotated[int, Range(least=1)]], content, str(path))


def known_plans(folder: Path) -> list[dict[str, Any]]:
    """Returns what the plan of the study said each time that it changed.

    Raises:
        DataError: If the file is damaged. Only this file says what was asked before anything ran,
            so it is not written anew.
    """
    found = read_record(History, folder / HISTORY)
    return [] if found is None else found[1]["plans"]


def extended_history(described: dict[str, Any], read: RunReader) -> dict[str, Any]:
    """Returns the history with the plan as it is now at its end.

    Each entry says how many runs of the plan before had ended by then, so a reader sees which seeds
    were added later.

    Args:
        described: The plan as it is now.
        read: Reads the runs of the study.

    Raises:
        UserError: If the primary contrast is not the one that the study began with.
    """
    history = known_plans(read.folder)
    keys = ("primary", "contrasts", "seeds", "budget", "recipe", "arms")
    entry = {key: described[key] for key in keys} | {"runs": sorted(described["runs"])}
    if history and history[0]["primary"] != entry["primary"]:
        was, now = (
            " against ".join(each["primary"][:2]) + f" in {each['primary'][2]}"
            for each in (history[0], entry)
        )
        raise UserError(
            f"the study in {read.folder} was begun to answer {was}, and its plan now says {now};"
            " another question needs another name"
        )
    if history and plan_identity(history[-1]) == plan_identity(entry):
        return {"plans": history}
    ended = sum(read.has_ended(name) for earlier in history[-1:] for name in earlier["runs"])
    return {"plans": [*history, {**entry, "ended_before": ended}]}


def history_until(identity: str, folder: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """Returns the history up to the last time that the plan was the one of this identity.

    Other processes may have changed the plan, and changed it back, meanwhile.

    Args:
        identity: Of the plan.
        folder: Of the study.
        begun: The history as it was when the plan was settled.
    """
    history = known_plans(folder)
    ends = [index + 1 for index, entry in enumerate(history) if plan_identity(entry) == identity]
    return {"plans": history[: ends[-1]]} if begun and ends else begun


def plan_identity(described: dict[str, Any]) -> str:
    """Returns a hash of what makes a plan another plan. The order of seeds and questions does not.

    Args:
        described: A plan as plain data, or its entry in the history.
    """
    values = [
        described.get("primary"),
        described.get("budget"),
        *(sorted(described.get(key, ())) for key in ("contrasts", "seeds", "runs")),
    ]
    return hash_json(values)[:16]


def read_derived(
    kind: type[WrittenPlan] | type[WrittenResults], path: Path, on_event: OnEvent
) -> dict[str, Any]:
    """Returns the content of a file that is made from others.

    A file that is missing or damaged gives nothing, because it is written anew.
    """
    try:
        found = read_record(kind, path)
    except DataError as error:
        on_event({"event": "renewed", "error": str(error)})
        return {}
    return {} if found is None else found[1]
