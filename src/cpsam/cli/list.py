"""``cpsam list``: the names that other verbs take."""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from cpsam.cli.parse import parse
from cpsam.errors import UserError, unknown

KINDS = ("attention", "placements", "models", "data")


@dataclass(frozen=True)
class List:
    kinds: Annotated[tuple[str, ...], tyro.conf.Positional] = KINDS
    """What to list: attention, placements, models, data."""
    json: bool = False
    """Print JSON."""


def summary(thing: object) -> str:
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split()).replace("``", "")


def run(words: list[str]) -> None:
    asked = parse(List, "list", words, "Names of blocks, placements, models and data sets.")
    for kind in asked.kinds:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    if len(set(asked.kinds)) < len(asked.kinds):
        raise UserError(f"a kind is given more than once: {' '.join(asked.kinds)}")
    from cpsam.attention import ATTENTION
    from cpsam.data import DATASETS
    from cpsam.insert import PLACEMENTS
    from cpsam.models import CIFAR_RESNETS

    names = {
        "attention": {"none": "The bare network."}
        | {name: summary(block) for name, block in ATTENTION.items()},
        "placements": {name: summary(placement) for name, placement in PLACEMENTS.items()},
        "models": dict.fromkeys(CIFAR_RESNETS, "For small images.")
        | {"timm/NAME": "Any model of timm.", "torchvision/NAME": "Any model of torchvision."},
        "data": {
            "digits": "1,797 handwritten digits, embedded.",
            "cifar10": "60,000 images of 10 classes.",
            "cifar100": "60,000 images of 100 classes.",
            "imagenet": "A folder a class, or the parquet shards of the hub; streamed.",
            "folder": "Your images, a folder a class.",
        },
    }
    assert set(names["data"]) == set(DATASETS)
    if asked.json:
        print(json.dumps({kind: names[kind] for kind in asked.kinds}, indent=1))
        return
    for kind in asked.kinds:
        print(f"{kind}:")
        width = max(map(len, names[kind]))
        for name, what in names[kind].items():
            print(f"  {name:{width}}  {what}")
