"""Small data sets of the real layouts, and a cache folder of each test's own."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.image_samples import noise, png

from cpsam.data import Dataset, Split


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CPSAM_CACHE", str(folder))
    monkeypatch.delenv("CPSAM_DATA", raising=False)
    return folder


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """A data set of noise, 7x5 images of 3 channels, without reading anything."""

    def make(
        count: int = 37,
        *,
        padding: int = 2,
        flip: bool = True,
        labels: list[int] | None = None,
        channels: int = 3,
    ) -> Dataset:
        images = torch.from_numpy(noise(count, 7, 5, channels)).permute(0, 3, 1, 2)
        split = Split(images, torch.arange(count) % 4 if labels is None else torch.tensor(labels))
        mean, std = (0.5, 0.45, 0.4)[:channels], (0.25, 0.3, 0.2)[:channels]
        return Dataset(
            "noise", split, split, ("a", "b", "c", "d"), mean, std, padding, flip, "f" * 64
        )

    return make


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Write one file in the hub's layout; `names` None leaves out the metadata."""

    def write(
        path: Path,
        images: list[bytes | None],
        labels: list[int | None],
        *,
        column: str = "fine_label",
        names: list | None = None,
    ) -> Path:
        cells = [None if image is None else {"bytes": image, "path": None} for image in images]
        image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"img": pa.array(cells, image_type), column: pa.array(labels, pa.int64())})
        if names is not None:
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": {column: {"names": names}}}})}
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=3)
        return path

    return write


@pytest.fixture
def small_cifar(tmp_path: Path, write_parquet: Callable[..., Path]) -> Path:
    """A folder of data sets with a CIFAR-100 of 11 train and 5 test images; the images are
    `noise(16, 32, 32, 3)`.
    """
    images, names = noise(16, 32, 32, 3), [f"class {index}" for index in range(100)]
    for split, rows in {"train": range(11), "test": range(11, 16)}.items():
        data = [png(images[row]) for row in rows]
        write_parquet(
            tmp_path / f"sets/cifar100/{split}-00000-of-00001.parquet",
            data,
            [row * 7 % 100 for row in rows],
            names=names,
        )
    return tmp_path / "sets"
