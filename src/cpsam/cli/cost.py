"""``cpsam cost``: what an insertion adds to a network, place by place."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from cpsam.cli.names import check_names
from cpsam.cli.network import NetworkRequest
from cpsam.cli.verb import Verb
from cpsam.config.ranges import Count
from cpsam.config.task import Task
from cpsam.typed import Range, check, checked


@dataclass(frozen=True)
class CostRequest:
    network: NetworkRequest = field(default_factory=NetworkRequest)
    attention: str = "cpsam"
    """The block, with arguments if wanted, as in cpsam:fusion=sum,reduction=8."""
    at: tuple[str, ...] = ("before-last",)
    """Places: names of placements (see: cpsam list placements), or module paths in which * is one
    segment.
    """
    classes: Count = 1000
    """Classes of the classifier, from 1 to 1,000,000."""
    batch_size: Annotated[int, Range(least=1, most=65_536)] = 8
    """Images in the batch that is timed, from 1 to 65,536."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check(self)


VERB = Verb(
    "cost",
    CostRequest,
    "Print what an insertion adds to a network, place by place, before any training: parameters,"
    " multiply-adds, time and memory.",
    {
        "CPSAM in a ResNet-50 of timm": "cpsam cost --model timm/resnet50 --attention cpsam",
        "Non-Local after each block of the third stage": (
            "cpsam cost --model resnet20 --attention non_local --at 'layer3.*'"
        ),
    },
    first=("model", "attention", "at", "image_size", "classes", "batch_size", "json"),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    check_names(Task(model=asked.network.model, at=asked.at), [asked.attention])
    from cpsam.run.cost import insertion_cost

    result = insertion_cost(
        asked.network.model,
        asked.attention,
        asked.at,
        image_shape=asked.network.image_shape,
        num_classes=asked.classes,
        batch_size=asked.batch_size,
    )
    if asked.json:
        print(json.dumps(result, indent=1))
    else:
        print_cost(result, asked.classes)


HEADER = ["place", "features", "parameters added", "MACs added", "ms per batch", "MiB for backward"]


def print_cost(result: dict[str, Any], classes: int) -> None:
    from cpsam.cli.table import print_table, wide_terminal
    from cpsam.report.field import TheoreticalFields
    from cpsam.report.table import Table
    from cpsam.report.values import count

    def row(name: str, features: str, cost: dict[str, Any], milliseconds: float) -> list[str]:
        saved = f"{cost['saved_bytes'] / 2**20:,.1f}" if "saved_bytes" in cost else ""
        return [
            name,
            features,
            f"{cost['parameters']:,}",
            count(cost["macs"]),
            f"{milliseconds:.2f}",
            saved,
        ]

    times = {at: time["median"] for at, time in result["timing"]["places"].items()}
    rows = [
        row(place["at"], "x".join(map(str, place["features"])), place, times[place["at"]])
        for place in result["places"]
    ]
    rows.append(row("all", "", result["total"], sum(times.values())))
    rows.append(row("bare network", "", result["host"], result["timing"]["host"]["median"]))
    console = wide_terminal()
    console.print(
        f"{result['attention']} in {result['model']}, images"
        f" {'x'.join(map(str, result['image_shape']))}, {classes:,} classes",
        style="bold",
    )
    print_table(console, Table(HEADER, rows))
    print(
        f"A batch is {result['batch_size']} images. ms: forward in evaluation, float32, median of"
        f" {result['timing']['host']['n']}. MiB for backward: what a training step keeps for its"
        " backward pass."
    )
    fields = checked(TheoreticalFields, result["receptive_fields"], "receptive_fields")
    print("\n".join(fields.sentences))
