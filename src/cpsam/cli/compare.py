"""``cpsam compare``: train each arm with each seed, then print one table."""

import json
from dataclasses import dataclass, field

from cpsam.cli.flags import build
from cpsam.cli.names import check_names
from cpsam.cli.parse import command_line
from cpsam.cli.preset import complete
from cpsam.cli.verb import Verb
from cpsam.config.presets import PRESETS
from cpsam.config.ranges import RunsAtOnce
from cpsam.config.study import Comparison
from cpsam.typed import check


@dataclass(frozen=True)
class CompareRequest:
    comparison: Comparison = field(default_factory=Comparison)
    runs_at_once: RunsAtOnce = 0
    """Runs at once, each in a process of its own; no result depends on it. 0: the cores divided by
    the threads of a run, and one at a time on a GPU.
    """
    preset: str = field(default="", metadata={"choices": PRESETS})
    """Take every flag that is not given from a preset: cued-digits, cifar100-200ep, cifar100-fast,
    imagenet-120ep or imagenet-finetune-40ep. Default: the one with the name of the data set, if
    there is one.
    """
    retry_failed: bool = False
    """Try failed runs once more."""
    dry_run: bool = False
    """Print the runs and the time that they would take; train nothing."""
    json: bool = False
    """Print the results as JSON."""

    def __post_init__(self) -> None:
        check(self)


VERB = Verb(
    "compare",
    CompareRequest,
    "Train each block with each seed, and print accuracy and cost side by side. The same command"
    " continues after an interruption.",
    {
        "three arms, six seeds, on strips whose label needs context": (
            "cpsam compare --attention none,non_local,cpsam --seeds 0,1,2,3,4,5"
        ),
        "two forms of CPSAM on your images: how long would it take?": (
            "cpsam compare --data folder --data-root photos --model timm/resnet18"
            " --attention none,cpsam,cpsam:fusion=sum --dry-run"
        ),
    },
    first=(
        "data",
        "data_root",
        "model",
        "attention",
        "at",
        "seeds",
        "preset",
        "epochs",
        "out",
        "dry_run",
    ),
    defaults={"data": "cued-digits"},
)


def run(words: list[str]) -> None:
    asked = build(CompareRequest, complete(VERB, words))
    check_names(asked.comparison.task, asked.comparison.attention)
    if asked.dry_run:
        from cpsam.cli.planned import print_planned

        study, folder = asked.comparison.study(), asked.comparison.folder
        print_planned(study, folder, asked.json, asked.runs_at_once)
        return
    from cpsam.cli.table import print_results
    from cpsam.progress import LiveStudy
    from cpsam.report.results import Results
    from cpsam.study.conduct import conduct

    with LiveStudy() as live:
        results = conduct(
            asked.comparison.study(),
            asked.comparison.folder,
            runs_at_once=asked.runs_at_once,
            command=command_line("compare", words),
            on_event=live,
            retry_failed=asked.retry_failed,
        )
    if asked.json:
        print(json.dumps(results, indent=1))
    else:
        print_results(Results.from_json(results), asked.comparison.folder)
