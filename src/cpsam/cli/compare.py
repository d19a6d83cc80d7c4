"""``cpsam compare``: train each arm with each seed, then one table."""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from cpsam.cli.parse import command_line, parse
from cpsam.cli.planned import print_planned
from cpsam.cli.table import print_results
from cpsam.config.study import Comparison
from cpsam.progress import LiveStudy
from cpsam.report.results import Results


@dataclass(frozen=True)
class Compare:
    comparison: Annotated[Comparison, tyro.conf.arg(name="")]
    retry_failed: bool = False
    """Try runs that failed once more."""
    dry_run: bool = False
    """Print the runs, and the time they would take, and do nothing."""
    json: bool = False
    """Print the results as JSON."""


def run(words: list[str]) -> None:
    asked = parse(
        Compare,
        "compare",
        words,
        "Train each block with each seed, and put accuracy and cost side by side.",
    )
    if asked.dry_run:
        print_planned(asked.comparison.study(), asked.comparison.folder, asked.json)
        return
    from cpsam.study.conduct import conduct

    with LiveStudy() as live:
        results = conduct(
            asked.comparison.study(),
            asked.comparison.folder,
            command=command_line("compare", words),
            on_event=live,
            retry_failed=asked.retry_failed,
        )
    if asked.json:
        print(json.dumps(results, indent=1))
    else:
        print_results(Results.from_json(results), asked.comparison.folder)
