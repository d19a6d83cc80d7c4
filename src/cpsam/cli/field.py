"""``cpsam field``: what part of an image each place of a network sees."""

import json
from dataclasses import dataclass

from cpsam.cli.cost import Side
from cpsam.cli.names import check_names
from cpsam.cli.verb import Verb
from cpsam.config.task import Task
from cpsam.errors import UserError
from cpsam.typed import check


@dataclass(frozen=True)
class FieldRequest:
    model: str = "resnet20"
    """Network: resnet20, 32, 44, 56, 110, resnet18, 34, 50 (3x3 stem), timm/NAME or
    torchvision/NAME. Its weights are random.
    """
    at: tuple[str, ...] = ()
    """Places: names of placements (see: cpsam list placements), or module paths in which * is one
    segment. Default: the last block of each stage.
    """
    image_size: tuple[Side, ...] = ()
    """Height and width of the images in pixels; one number for a square; 1 to 4,096. Default: 224
    for timm and torchvision; else 32.
    """
    in_channels: Side = 3
    """Channels of the images, from 1 to 4,096."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check(self)
        if len(self.image_size) > 2:
            raise UserError(
                f"image_size is one or two numbers of pixels; got {len(self.image_size)}"
            )


VERB = Verb(
    "field",
    FieldRequest,
    "Print the receptive field of each place of a network, theoretical and effective, and where"
    " something remote is left for attention to see.",
    {
        "The stages of a ResNet-50 of timm": "cpsam field --model timm/resnet50 --image-size 224",
        "Each block of the third stage": "cpsam field --model resnet20 --at 'layer3.*'",
    },
    first=("model", "at", "image_size", "json"),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    check_names(Task(model=asked.model, at=asked.at or ("stage-ends",)), [])
    from cpsam.insert.receptive_field import receptive_field
    from cpsam.models import create_model

    side = 224 if "/" in asked.model else 32
    height, width = (
        (*asked.image_size, *asked.image_size[-1:])[:2] if asked.image_size else (side, side)
    )
    model = create_model(asked.model, 10, in_channels=asked.in_channels, seed=0)
    fields = receptive_field(model, asked.at or None, (height, width))
    if asked.json:
        print(json.dumps(fields.to_json(), indent=1))
        return
    from cpsam.cli.table import print_table, wide_terminal

    console = wide_terminal()
    channels = asked.in_channels
    console.print(f"{asked.model}, images {channels}x{height}x{width}", style="bold")
    print_table(console, fields.table())
    print("\n".join(fields.sentences))
    print(fields.table().caption)
