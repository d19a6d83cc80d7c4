"""Each command says first what it does not use of the data.

A run is measured again with the columns that it was trained on.
"""

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cpsam.cli import main

SMALL = ["--epochs", "1", "--batch-size", "2", "--image-size", "8", "--threads", "1"]
NOTE = "not used: 1 file in 1 folder, not images by their names: train/a/notes.txt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPSAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cpsam.data.load_options.default_workers", lambda: 0)  # no process to start


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(path.as_posix().encode())).integers(
        0, 256, (9, 9, 3), np.uint8
    )
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for split, count in (("train", 2), ("val", 1)):
        for index in range(2 * count):
            picture(root / split / "ab"[index % 2] / f"{index}.png")
    (root / "train/a/notes.txt").write_text("text")
    return root


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    main([str(word) for word in words])
    return "".join(capsys.readouterr())


def test_train_and_eval(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tree.parent / "run"
    assert (
        said(capsys, "train", "--data", "folder", "--data-root", tree, *SMALL, "--out", run).count(
            NOTE
        )
        == 1
    )
    assert said(capsys, "eval", run, "--data-root", tree).count(NOTE) == 1


PLAN = """
name = "s"
seeds = [0]
control = false
[task]
data = "folder"
image_size = 8
[recipe]
epochs = 1
batch_size = 2
[[setting]]
name = "last"
at = ["before-last"]
arms = ["none", "eca"]
"""


@pytest.mark.parametrize("verb", ["compare", "study"])
def test_studies(tree: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    (tree.parent / "plan.toml").write_text(PLAN)
    given = {
        "compare": ["--data", "folder", *SMALL, "--attention", "none", "eca", "--seeds", "0"],
        "study": [tree.parent / "plan.toml"],
    }
    assert NOTE in said(
        capsys,
        verb,
        *given[verb],
        "--runs-at-once",
        1,
        "--data-root",
        tree,
        "--out",
        tree.parent / "out",
    )


def test_eval_of_a_run_with_named_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [{"bytes": picture(tmp_path / f"{index}.png").read_bytes()} for index in range(6)]
    kind = pa.struct([("bytes", pa.binary())])
    (tmp_path / "shards").mkdir()
    for split, rows in {"train": range(4), "validation": range(4, 6)}.items():
        table = {
            "photo": pa.array([cells[row] for row in rows], kind),
            "kind": ["ab"[row % 2] for row in rows],
            "label": [0 for _ in rows],
        }
        pq.write_table(pa.table(table), tmp_path / f"shards/{split}-0.parquet")
    columns = ["--image-column", "photo", "--label-column", "kind"]
    words = [
        "--data",
        "folder",
        "--data-root",
        tmp_path / "shards",
        *SMALL,
        "--workers",
        0,
        *columns,
    ]
    note = "not used: 1 column beside 'photo' and 'kind': label"
    trained = said(capsys, "train", *words, "--out", tmp_path / "run")
    measured = said(capsys, "eval", tmp_path / "run", "--data-root", tmp_path / "shards")
    assert note in trained and note in measured
    assert top1(measured) == top1(trained)


def top1(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("top-1")).split("  ")[0]
