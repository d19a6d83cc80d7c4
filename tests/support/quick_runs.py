"""A study whose runs end at once, so that tests see what is around them."""

from pathlib import Path
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.study import Setting, Study
from cpsam.config.task import Task
from cpsam.run.events import OnEvent
from cpsam.run.spec import RunSpec
from cpsam.study.conduct import conduct
from cpsam.study.executor import InProcess
from support.finished_runs import finish

STUDY = Study(
    name="kept",
    settings=(Setting("last", Task(), ("none", "non_local", "cpsam")),),
    seeds=(0, 1),
    recipe=Recipe(epochs=1),
    control=False,
)
QUIET: OnEvent = lambda event: None  # noqa: E731


class Fake:
    """Ends runs at once; the runs that `errors` names, by that error."""

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
