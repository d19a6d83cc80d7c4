"""``cpsam data verify``: read every image of a data set and list what is wrong."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpsam.cli.verb import Verb
from cpsam.errors import DataError, unknown
from cpsam.text import printable

ACTIONS = ("verify",)
CLASSES_SHOWN = 30


@dataclass(frozen=True)
class DataRequest:
    action: str = field(metadata={"positional": True, "choices": ACTIONS})
    """What to do: verify, which decodes every image and lists what is wrong. The exit code is 3 if
    anything is wrong.
    """
    path: Path = field(metadata={"positional": True})
    """A folder with train/CLASS/ and val/CLASS/, with CLASS/, or with parquet shards in it or in
    its data/.
    """
    image_column: str | None = None
    """The column of image files in parquet shards. Default: image or img."""
    label_column: str | None = None
    """The column of labels in parquet shards, whole numbers or texts. Default: label, labels,
    fine_label, class or target.
    """
    json: bool = False
    """Print JSON, which --skip-bad of other verbs reads."""


VERB = Verb(
    "data",
    DataRequest,
    "Read every image of a data set before anything is trained on it, and list what is wrong.",
    {
        "check a folder of images": "cpsam data verify photos",
        "write down the bad images, then train without them": (
            "cpsam data verify photos --json > bad.json; cpsam train --data folder --data-root"
            " photos --skip-bad bad.json --out runs/photos"
        ),
    },
    first=("image_column", "label_column", "json"),
)


def run(words: list[str]) -> None:
    asked = VERB.read(words)
    if asked.action not in ACTIONS:
        raise unknown("action", asked.action, ACTIONS)
    from cpsam.data.verify import verify
    from cpsam.progress import ProgressBars

    with ProgressBars() as bars:
        found = verify(
            asked.path,
            lambda what, done, total: bars(
                {"event": "data", "what": what, "done": done, "total": total}
            ),
            asked.image_column,
            asked.label_column,
        )
    if asked.json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        print_found(found.to_dict())
        for fault in found.faults:
            print(printable(str(fault)))
    if found.faults:
        images = len({fault.image for fault in found.faults} - {None})
        raise DataError(
            f"{len(found.faults):,} faults in {asked.path}, {images:,} images among them can be"
            " left out with --skip-bad"
        )


def print_found(found: dict[str, Any]) -> None:
    """Prints the notes, one line per split, and one line per class where there are few."""
    for note in found["notes"]:
        print(note)
    for split, part in found["splits"].items():
        counts = part["classes"]
        spread = (
            f", {min(counts.values()):,} to {max(counts.values()):,} per class" if counts else ""
        )
        print(f"{split:5}  {part['images']:,} images of {len(counts):,} classes{spread}")
    classes = found["splits"]["train"]["classes"]
    if len(classes) <= CLASSES_SHOWN:
        width = max(map(len, classes), default=0)
        for name in classes:
            print(
                f"  {printable(name):{width}}  "
                + "  ".join(
                    f"{split} {part['classes'][name]:,}" for split, part in found["splits"].items()
                )
            )
