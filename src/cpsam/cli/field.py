"""``cpsam field``: what part of an image each place of a network sees."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cpsam.cli.names import check_names
from cpsam.cli.network import NetworkRequest
from cpsam.cli.verb import Verb
from cpsam.config.task import Task
from cpsam.typed import check

CLASSES = 10  # The classifier is behind every place.


@dataclass(frozen=True)
class FieldRequest:
    network: NetworkRequest = field(default_factory=NetworkRequest)
    weights: Path | None = None
    """Pretrained weights: a file of safetensors or torch, of which only tensors are read, or the
    folder of a finished run without blocks. Default: random weights.
    """
    weights_key: str | None = None
    """Which weights to take where the file has several: a name in it (state_dict_ema) or a prefix
    (encoder_q). Default: the average.
    """
    at: tuple[str, ...] = ()
    """Places: names of placements (see: cpsam list placements), or module paths in which * is one
    segment. Default: the last block of each stage.
    """
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check(self)


VERB = Verb(
    "field",
    FieldRequest,
    "Print the receptive field of each place of a network, theoretical and effective, and where"
    " something remote is left for attention to see.",
    {
        "The stages of a ResNet-50 of timm": "cpsam field --model timm/resnet50 --image-size 224",
        "A network with the weights of a run": (
            "cpsam field --model resnet20 --weights runs/baseline --image-size 32"
        ),
        "Each block of the third stage": "cpsam field --model resnet20 --at 'layer3.*'",
    },
    first=("model", "weights", "at", "image_size", "json"),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    network = asked.network
    check_names(Task(model=network.model, at=asked.at or ("stage-ends",)), [])
    from cpsam.insert.receptive_field import receptive_field
    from cpsam.models import create_model

    channels, height, width = network.image_shape
    model = create_model(
        network.model,
        CLASSES,
        in_channels=channels,
        weights=asked.weights,
        weights_key=asked.weights_key,
        seed=0,
        on_note=lambda note: print(f"cpsam: {note}", file=sys.stderr),
    )
    fields = receptive_field(model, asked.at or None, (height, width))
    if asked.json:
        print(json.dumps(fields.to_json(), indent=1))
        return
    from cpsam.cli.table import print_table, wide_terminal

    console = wide_terminal()
    shape = "x".join(map(str, network.image_shape))
    how = f"weights of {asked.weights}" if asked.weights else "random weights"
    console.print(f"{network.model}, {how}, images {shape}", style="bold")
    print_table(console, fields.table())
    print("\n".join([*fields.sentences, *fields.explanation]))
    if asked.weights is None:
        print(
            "Here the weights are random. Branches that start at zero add nothing to the effective"
            " field yet; --weights takes those of a trained network."
        )
