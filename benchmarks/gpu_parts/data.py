"""The images to train on: CIFAR-100 where it is, with a part of it if that is all, else strips."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsam.data import Dataset, load_dataset
from cpsam.errors import CpsamError

LAYOUTS = (  # folder in the folder of data sets, its train and its test files, what must be there
    ("cifar100", "train-*.parquet", "test-*.parquet", ""),
    ("cifar100/cifar100", "train-*.parquet", "test-*.parquet", ""),
    ("cifar-100-python", "train", "test", "meta"),
)


@dataclass(frozen=True)
class Found:
    """Holds where images are: the files, and whether they are all of CIFAR-100 or its test split.

    Without any files they are the strips of `cued-digits`, which come with the package.
    """

    files: tuple[Path, ...] = ()
    part: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        return "cifar100" if self.files else "cued-digits"

    def describe(self) -> dict[str, Any]:
        size = sum(path.stat().st_size for path in self.files)
        return {"name": self.name, "part": self.part, "file_bytes": size, "note": self.note}

    def __str__(self) -> str:
        if not self.files:
            return f"cued-digits, 7,200 strips of 8x60 in the package, 3.5 MB ({self.note})"
        size = sum(path.stat().st_size for path in self.files) / 1e6
        what = "part of it, 10,000 images" if self.part else "60,000 images"
        decoded = (10_000 if self.part else 60_000) * 32 * 32 * 3 / 1e6
        return f"cifar100, {what}, {size:.1f} MB of files, {decoded:.1f} MB decoded"


def find(root: Path | None) -> Found:
    """Returns what images there are in a folder of data sets."""
    if root is None:
        return Found(note="no --data FOLDER was given")
    for folder, train, test, needed in LAYOUTS:
        inside = root / folder
        trains, tests = sorted(inside.glob(train)), sorted(inside.glob(test))
        if tests and (not needed or (inside / needed).is_file()):
            rest = [inside / needed] if needed else []
            return Found((*trains, *tests, *rest), part=not trains)
    return Found(note=f"no cifar100 in {root}")


def load(found: Found) -> tuple[Dataset, Found]:
    """Returns the images, and what they really are: strips if the files cannot be read.

    A part of CIFAR-100 is its test split, which is then trained on too: only the speed counts.
    """
    if not found.files:
        return load_dataset("cued-digits"), found
    try:
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(
                folder, "cifar-100-python" if found.files[-1].name == "meta" else "cifar100"
            )
            inside.mkdir()
            for path in found.files:
                (inside / path.name).symlink_to(path.resolve())
                if found.part and path.name.startswith("test"):
                    (inside / path.name.replace("test", "train")).symlink_to(path.resolve())
            return load_dataset("cifar100", folder), found
    except (CpsamError, ImportError, OSError) as error:
        return load(Found(note=f"cifar100 cannot be read: {error}"))
