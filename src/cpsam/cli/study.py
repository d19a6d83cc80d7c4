"""``cpsam study``: carry out a plan, on one machine or many, then write one report."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cpsam.cli.names import check_names
from cpsam.cli.parse import command_line
from cpsam.cli.verb import Verb
from cpsam.config.ranges import RunsAtOnce
from cpsam.errors import UserError
from cpsam.typed import Choices, Range, check

Executor = Annotated[str, Choices("here", "ray")]
Portion = Annotated[float | None, Range(least=0)]


@dataclass(frozen=True)
class StudyRequest:
    plan: Path = field(metadata={"positional": True})
    """The plan, a TOML file. It fixes seeds, arms, settings and the question before anything runs.
    """
    data_root: Path | None = None
    """Folder of data sets. Default: the environment variable CPSAM_DATA."""
    out: Path = Path("runs")
    """Folder of studies. This one gets a folder of its name in it. Runs that have ended are read,
    not repeated.
    """
    workers: Annotated[int | None, Range(least=0)] = None
    """Processes that load streamed images. Default: the number of processors."""
    executor: Executor = "here"
    """Who trains: here means this machine; ray means Ray, on one machine or many."""
    runs_at_once: RunsAtOnce = 0
    """Runs at once, each in a process of its own; no result depends on it. 0: the cores divided by
    the threads of a run, and one at a time on a GPU.
    """
    address: str | None = None
    """The cluster of Ray, as HOST:PORT, or auto for the one that runs on this machine. Default: one
    is started here, for this study.
    """
    cpus_per_run: Portion = None
    """Cores per run on Ray; may be a fraction. Default: its threads."""
    gpus_per_run: Portion = None
    """GPUs per run on Ray; may be a fraction. Default: one, where there are any."""
    retries: Annotated[int, Range(least=0)] = 3
    """How often Ray tries a run again after its worker died."""
    retry_failed: bool = False
    """Try failed runs once more."""
    report: bool = False
    """Train nothing; write the report on the runs that there are."""
    dry_run: bool = False
    """Print the runs and the time that they would take; train nothing."""
    json: bool = False
    """Print the results as JSON."""

    def __post_init__(self) -> None:
        check(self)
        if self.report and self.retry_failed:
            raise UserError(
                "--report trains nothing, and --retry-failed trains; give one of the two"
            )
        if self.executor == "ray" and self.runs_at_once:
            raise UserError(
                "--runs-at-once is for --executor here; Ray places runs by --cpus-per-run and"
                " --gpus-per-run"
            )


VERB = Verb(
    "study",
    StudyRequest,
    "Carry out a plan from a file, on one machine or many, then write one report. The same command"
    " continues after an interruption.",
    {
        "see the runs of a plan and how long they would take": "cpsam study plan.toml --dry-run",
        "carry it out, two runs per GPU": (
            "cpsam study plan.toml --executor ray --gpus-per-run 0.5 --out runs"
        ),
    },
    first=(
        "data_root",
        "out",
        "dry_run",
        "report",
        "retry_failed",
        "runs_at_once",
        "executor",
        "address",
        "gpus_per_run",
        "json",
    ),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    from cpsam.config.plan_file import read_plan

    study = read_plan(asked.plan, data_root=asked.data_root, workers=asked.workers)
    for setting in study.settings:
        check_names(setting.task, setting.arms)
    folder = asked.out / study.name
    # Set this before torch is imported. Two studies on the same cores would otherwise slow each
    # other some twentyfold, because their threads wait in a loop.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if asked.dry_run:
        from cpsam.cli.planned import print_planned

        at_once = 1 if asked.executor == "ray" else asked.runs_at_once
        print_planned(study, folder, asked.json, at_once)
        return
    if asked.report and not folder.is_dir():
        raise UserError(f"there is nothing to report on: {folder} is missing")
    from cpsam.cli.table import print_results
    from cpsam.progress import LiveStudy
    from cpsam.report.results import Results
    from cpsam.study.conduct import conduct

    options = {
        "command": command_line("study", words),
        "runs_at_once": asked.runs_at_once,
        "retry_failed": asked.retry_failed,
        "train": not asked.report,
    }
    with executor(asked) as workers, LiveStudy() as live:
        results = conduct(study, folder, executor=workers, on_event=live, **options)
    if asked.json:
        print(json.dumps(results, indent=1))
    else:
        print_results(Results.from_json(results), folder)


def executor(asked: StudyRequest) -> AbstractContextManager[Any]:
    """Returns who trains; None stands for this machine."""
    if asked.executor != "ray" or asked.report:
        return nullcontext()
    from cpsam.study.ray_executor import RayExecutor

    return RayExecutor(
        asked.address, cpus=asked.cpus_per_run, gpus=asked.gpus_per_run, retries=asked.retries
    )
