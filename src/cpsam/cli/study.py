"""``cpsam study``: carry out a plan, from one machine or many, then one report."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cpsam.cli.parse import command_line, parse
from cpsam.cli.planned import print_planned
from cpsam.cli.table import print_results
from cpsam.errors import UserError, unknown
from cpsam.progress import LiveStudy
from cpsam.report.results import Results

EXECUTORS = ("here", "ray")


@dataclass(frozen=True)
class StudyRequest:
    plan: Annotated[Path, tyro.conf.Positional]
    """The plan, a TOML file: seeds, arms, settings and the question, all fixed before anything
    runs.
    """
    data_root: Path | None = None
    """Folder of data sets. Default: the environment variable CPSAM_DATA."""
    out: Path = Path("runs")
    """Folder of studies; this one gets a folder of its name in it. Runs in it that have ended are
    read, not repeated.
    """
    workers: int | None = None
    """Streamed images: processes that load them. Default: the processors."""
    executor: str = "here"
    """Who trains: here, this process, one run after the other, or ray, several at once on one
    machine or many.
    """
    address: str | None = None
    """Ray: the cluster, as in HOST:PORT, or auto for the one that runs on this machine. Default:
    one is started here, for this study.
    """
    cpus_per_run: float | None = None
    """Ray: cores that a run is given, a fraction if wanted. Default: its threads."""
    gpus_per_run: float | None = None
    """Ray: GPUs that a run is given, a fraction if wanted. Default: one, where there are any."""
    retries: int = 3
    """Ray: how often a run is tried again after its worker died."""
    retry_failed: bool = False
    """Try runs that failed once more."""
    report: bool = False
    """Train nothing: report on what there is."""
    dry_run: bool = False
    """Print the runs, and the time they would take, and do nothing."""
    json: bool = False
    """Print the results as JSON."""

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        for name, least in (
            ("cpus_per_run", 0),
            ("gpus_per_run", 0),
            ("retries", 0),
            ("workers", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} must be at least {least}; got {value}")
        if self.report and self.retry_failed:
            raise UserError(
                "--report trains nothing, and --retry-failed trains; give one of the two"
            )


def run(words: list[str]) -> None:
    asked = parse(
        StudyRequest,
        "study",
        words,
        "Carry out a plan; the same command continues it after an interruption.",
    )
    # Before torch is loaded: of two studies on the same cores, threads that wait in a loop would
    # slow both some twentyfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from cpsam.config.plan_file import read_plan
    from cpsam.study.conduct import conduct

    study = read_plan(asked.plan, data_root=asked.data_root, workers=asked.workers)
    folder = asked.out / study.name
    if asked.dry_run:
        print_planned(study, folder, asked.json)
        return
    if asked.report and not folder.is_dir():
        raise UserError(f"there is nothing to report on: {folder} is missing")
    options = {
        "command": command_line("study", words),
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
    """None stands for this process."""
    if asked.executor != "ray" or asked.report:
        return nullcontext()
    from cpsam.study.ray_executor import RayExecutor

    return RayExecutor(
        asked.address, cpus=asked.cpus_per_run, gpus=asked.gpus_per_run, retries=asked.retries
    )
