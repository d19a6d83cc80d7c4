"""Makes a small data set in the layouts of ImageNet: a thousand classes of a few pictures each.

As a program: ``python tests/imagenet_tree.py FOLDER``; ``--cifar FOLDER`` takes enlarged pictures
of CIFAR-100 in place of drawn ones.
"""

import argparse
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {"train": "train", "validation": "val"}  # names of shards, and of folders


def synsets(classes: int) -> list[str]:
    return [f"n{10_000_000 + 137 * index:08d}" for index in range(classes)]


def jpeg(pixels: np.ndarray, height: int, width: int) -> bytes:
    """A picture of (H, W, 3), enlarged, as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR).save(
        buffer, "JPEG", quality=85
    )
    return buffer.getvalue()


def drawn(label: int, number: int) -> np.ndarray:
    """A picture of 8x8 colours, those of its class with a little noise, so that there is something
    to learn.
    """
    base = np.random.default_rng(label).integers(0, 256, (8, 8, 3))
    noise = np.random.default_rng([label, number]).integers(-40, 41, (8, 8, 3))
    return (base + noise).clip(0, 255).astype(np.uint8)


def size_of(number: int) -> tuple[int, int]:
    """Heights and widths of many shapes, as photographs have them."""
    return 72 + 8 * (number % 5), 64 + 16 * (number % 3)


def pictures(
    classes: int, train: int, validation: int, cifar: Path | None = None
) -> Iterator[tuple[str, int, int, bytes]]:
    """Split, label, number and JPEG of every picture; no two are alike.

    Args:
        classes: How many; 1000 as ImageNet has them.
        train: Pictures a class to train on.
        validation: To measure on.
        cifar: Folder of data sets, for pictures of CIFAR-100: those of its class, in turn.
    """
    sources = None
    if cifar is not None:
        from cpsam.data import load_dataset

        split = load_dataset("cifar100", cifar).train
        sources = [
            split.pixels(np.flatnonzero(split.labels.numpy() == label)) for label in range(100)
        ]

    def picture(job: tuple[str, int, int]) -> tuple[str, int, int, bytes]:
        split, label, number = job
        each = train + validation
        which = number + (train if split == "validation" else 0)
        pixels = (
            drawn(label, which)
            if sources is None
            else sources[label % 100][label // 100 * each + which]
        )
        return split, label, number, jpeg(pixels, *size_of(label + number))

    jobs = [
        (split, label, number)
        for split, count in (("train", train), ("validation", validation))
        for label in range(classes)
        for number in range(count)
    ]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(picture, jobs, chunksize=64)


def write_folder(
    root: Path,
    *,
    classes: int = 1000,
    train: int = 3,
    validation: int = 1,
    cifar: Path | None = None,
) -> Path:
    """``root/train/SYNSET/SYNSET_0.JPEG`` and ``root/val/SYNSET/...``."""
    names = synsets(classes)
    for split in SPLITS.values():
        for name in names:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    for split, label, number, data in pictures(classes, train, validation, cifar):
        (root / SPLITS[split] / names[label] / f"{names[label]}_{number}.JPEG").write_bytes(data)
    return root


def write_shards(
    root: Path,
    *,
    classes: int = 1000,
    train: int = 3,
    validation: int = 1,
    shards: int = 4,
    rows_a_group: int = 100,
    cifar: Path | None = None,
) -> Path:
    """``root/data/train-00000-of-00004.parquet`` and
    ``root/data/validation-00000-of-00001.parquet``, rows in an order of their own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = synsets(classes)
    rows: dict[str, list[tuple[int, int, bytes]]] = {split: [] for split in SPLITS}
    for split, label, number, data in pictures(classes, train, validation, cifar):
        rows[split].append((label, number, data))
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (root / "data").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", shards), ("validation", 1)):
        mixed = np.random.default_rng(0).permutation(len(rows[split]))
        for index, part in enumerate(np.array_split(mixed, count)):
            chosen = [rows[split][row] for row in part]
            images = [
                {"bytes": data, "path": f"{names[label]}_{number}.JPEG"}
                for label, number, data in chosen
            ]
            table = pa.table(
                {
                    "image": pa.array(images, image_type),
                    "label": pa.array([label for label, _, _ in chosen], pa.int64()),
                }
            )
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
            pq.write_table(
                table,
                root / "data" / f"{split}-{index:05d}-of-{count:05d}.parquet",
                row_group_size=rows_a_group,
            )
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder to write: folder/ and shards/ in it")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--train", type=int, default=3, help="pictures a class")
    parser.add_argument("--validation", type=int, default=1, help="pictures a class")
    parser.add_argument("--cifar", type=Path, help="folder of data sets with cifar100/ in it")
    asked = parser.parse_args()
    for write, name in ((write_folder, "folder"), (write_shards, "shards")):
        write(
            asked.root / name,
            classes=asked.classes,
            train=asked.train,
            validation=asked.validation,
            cifar=asked.cifar,
        )
