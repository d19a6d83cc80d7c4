"""Every kind of spoiled image is found, and whoever trains on a set either refuses it or is told to
leave it out.
"""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.image_samples import noise, png, png_header_of
from support.imagenet_tree import drawn, jpeg, synsets, write_folder, write_shards

from cpsam.data import load_dataset, train_batches
from cpsam.data.verify import read_skip, verify
from cpsam.errors import DataError

GOOD = jpeg(drawn(0, 99), 90, 70)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frames(count: int) -> list[Image.Image]:
    return [Image.fromarray(noise(20, 24, 3, seed=seed)) for seed in range(count)]


SPOILED = {
    "truncated.jpg": (GOOD[:-200], "not an image that can be decoded .*truncated"),
    "short.png": (png(noise(40, 40, 3))[:-900], "not an image that can be decoded"),
    "empty.jpg": (b"", "not an image that can be decoded .*cannot identify"),
    "text.jpg": (b"this is no picture\n", "not an image that can be decoded .*cannot identify"),
    "gif.jpg": (saved(frames(1)[0], "GIF"), "not an image that can be decoded .*cannot identify"),
    "sixteen.png": (
        saved(Image.fromarray(noise(20, 20).astype(np.uint16)), "PNG"),
        "mode 'I;16', more than 8 bits per channel",
    ),
    "moving.png": (
        saved(frames(3)[0], "PNG", save_all=True, append_images=frames(3)[1:]),
        "animated image of 3 frames; keep one",
    ),
    "moving.webp": (
        saved(frames(2)[0], "WEBP", save_all=True, append_images=frames(2)[1:]),
        "animated image of 2 frames; keep one",
    ),
    "bomb.png": (png_header_of(60_000, 60_000), "decompression bomb"),
    "large.png": (png_header_of(10_000, 9_500), "decompression bomb"),
}
CONVERTED = {
    "cmyk.jpg": saved(Image.fromarray(noise(30, 40, 4), "CMYK"), "JPEG"),
    "grey.jpg": saved(Image.fromarray(noise(30, 40)), "JPEG"),
    "transparent.png": png(noise(30, 40, 4)),
    "png.jpg": png(noise(30, 40, 3)),
    "preview.jpg": saved(frames(2)[0], "MPO", save_all=True, append_images=frames(2)[1:]),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*mode.*parameter is deprecated:DeprecationWarning")


@pytest.fixture
def spoiled(tmp_path: Path) -> tuple[Path, set[str]]:
    root = write_folder(tmp_path / "pictures", classes=3, train=5, validation=2)
    folder = f"train/{synsets(3)[1]}"
    for name, data in {**{name: data for name, (data, _) in SPOILED.items()}, **CONVERTED}.items():
        (root / folder / name).write_bytes(data)
    return root, {f"{folder}/{name}" for name in SPOILED}


def test_every_spoiled_file_is_found_and_no_other(spoiled: tuple[Path, set[str]]) -> None:
    root, bad = spoiled
    told: list[tuple[str, int, int]] = []
    found = verify(root, lambda *event: told.append(event))
    assert {fault.image for fault in found.faults} == bad and len(found.faults) == len(bad)
    for fault in found.faults:
        assert re.search(SPOILED[Path(fault.where).name][1], fault.reason), fault
        assert fault.where == str(root / fault.image) and fault.row is None
    assert found.counts == {"train": [5, 5 + len(SPOILED) + len(CONVERTED), 5], "test": [2, 2, 2]}
    assert told[-1] == (
        "decoding images",
        21 + len(SPOILED) + len(CONVERTED),
        21 + len(SPOILED) + len(CONVERTED),
    )


@pytest.mark.parametrize("stream", [False, True])
def test_training_refuses_them_or_leaves_them_out(
    spoiled: tuple[Path, set[str]], tmp_path: Path, stream: bool
) -> None:
    root, bad = spoiled
    options: dict = {"image_size": 16, "stream": stream, "workers": 0}
    with pytest.raises(DataError, match=r"pictures/train/n10000137/\w+\.\w+: "):
        dataset = load_dataset("folder", root, **options)
        list(train_batches(dataset, batch_size=5, seed=0, epoch=0))
    listed = tmp_path / "faults.json"
    listed.write_text(json.dumps(verify(root).to_dict()))
    dataset = load_dataset("folder", root, skip=read_skip(listed), **options)
    assert dataset.skipped == tuple(sorted(bad)) and len(dataset.train) == 15 + len(CONVERTED)
    assert sum(len(y) for _, y in train_batches(dataset, batch_size=5, seed=0, epoch=0)) == len(
        dataset.train
    )
    assert verify_without(root, bad) == []


def verify_without(root: Path, bad: set[str]) -> list:
    for name in bad:
        (root / name).unlink()
    return verify(root).faults


def test_images_of_the_test_split_must_not_be_trained_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", classes=3, train=4, validation=2)
    first, second = synsets(3)[:2]
    with Image.open(root / f"val/{first}/{first}_1.JPEG") as image:
        image.save(root / f"train/{second}/again.png")  # another file, the same pixels
    (fault,) = verify(root).faults
    assert fault.image == f"train/{second}/again.png"
    assert fault.reason == f"the same pixels as val/{first}/{first}_1.JPEG, of the test split"


def test_a_tree_that_cannot_be_loaded_is_listed_whole(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", classes=3, train=2, validation=1)
    (root / "train/bee").mkdir()
    (root / "val/yak").mkdir()
    (root / "val/yak/1.png").write_bytes(png(noise(9, 9, 3)))
    (root / f"train/{synsets(3)[0]}/x.gif").write_bytes(b"")
    (root / f"train/{synsets(3)[0]}/gone.png").symlink_to(root / "nowhere.png")
    found = verify(root)
    assert [
        (Path(fault.where).relative_to(root).as_posix(), fault.reason.split(" (")[0], fault.image)
        for fault in found.faults
    ] == [
        ("train/bee", "no images in this class folder; it has nothing", None),
        ("train/n10000000/gone.png", "cannot be read", "train/n10000000/gone.png"),
        (
            "train/n10000000/x.gif",
            ".gif is not read; convert it to .png or .jpg, or move it away",
            "train/n10000000/x.gif",
        ),
        ("val/yak", f"class 'yak' is not in {root / 'train'}", None),
    ]


def test_shards_are_looked_at_row_by_row(tmp_path: Path) -> None:
    root = write_shards(
        tmp_path / "hub", classes=5, train=8, validation=2, shards=4, rows_a_group=3
    )
    assert verify(root).faults == [] and verify(root).counts == {"train": [8] * 5, "test": [2] * 5}
    one, two, three = (root / f"data/train-0000{index}-of-00004.parquet" for index in (0, 1, 2))
    (root / "data/train-00003-of-00004.parquet").unlink()
    table = pq.read_table(one)
    columns = table.to_pydict()
    kept = pq.read_table(root / "data/validation-00000-of-00001.parquet").to_pydict()["image"][3]
    columns["image"][2:6] = [
        None,
        {"bytes": GOOD[:-300], "path": None},
        {"bytes": png_header_of(10**5, 10**5), "path": None},
        kept,
    ]
    columns["label"][5:8] = [None, 5, -1]
    pq.write_table(pa.table(columns, schema=table.schema), one)
    two.write_bytes(two.read_bytes()[:-40])
    damaged = bytearray(three.read_bytes())
    damaged[4:40] = bytes(36)  # the head of the first page of images
    three.write_bytes(damaged)

    found = verify(root)
    rows = {
        (Path(fault.where).name[:11], fault.row, fault.reason.split(" (")[0], fault.image)
        for fault in found.faults
    }
    name = one.name
    assert {
        (row, reason, image)
        for file, row, reason, image in rows
        if file == "train-00000" and row is not None
    } == {
        (2, "no image", f"{name}, row 2"),
        (3, "not an image that can be decoded", f"{name}, row 3"),
        (4, "not an image that can be decoded", f"{name}, row 4"),
        (5, "no label", f"{name}, row 5"),
        (
            5,
            "the same pixels as validation-00000-of-00001.parquet, row 3, of the test split",
            f"{name}, row 5",
        ),
        (6, "label 5 is out of range, it must be 0 to 4", f"{name}, row 6"),
        (7, "label -1 is out of range, it must be 0 to 4", f"{name}, row 7"),
    }
    assert (
        "train-00001",
        None,
        "cannot be read as parquet, it may be cut short or damaged",
        None,
    ) in rows
    (broken,) = [fault for fault in found.faults if fault.where == str(three)]
    assert broken.row is None and "rows 0 and after were not looked at" in broken.reason
    assert any(
        "one of 4 files by its name, but 3 train files are in" in fault.reason
        for fault in found.faults
    )


def test_shards_of_other_classes_are_said(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "hub", classes=4, train=3, validation=1, shards=2)
    path = root / "data/train-00001-of-00002.parquet"
    table = pq.read_table(path)
    names = {"info": {"features": {"label": {"names": ["a", "b", "c", "d"]}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), path)
    (fault,) = verify(root).faults
    assert (
        fault.where == str(path)
        and fault.reason == "its metadata names other classes than the first shard's"
        and fault.image is None
    )


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: cannot be read \(No such file"):
        read_skip(tmp_path / "nowhere.json")
    for text in ("", "[]", '{"faults": [1]}', '{"faults": [{}]}'):
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(
            DataError,
            match=r"list\.json: not a list of faults as cpsam data verify prints it in JSON",
        ):
            read_skip(tmp_path / "list.json")


def test_the_command_lists_all_faults_and_answers_3(
    spoiled: tuple[Path, set[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from cpsam.cli import main

    root, bad = spoiled
    with pytest.raises(SystemExit) as end:
        main(["data", "verify", str(root)])
    out, err = capsys.readouterr()
    assert (
        end.value.code == 3
        and f"cpsam: {len(bad)} faults in {root}, {len(bad)} images among them" in err
    )
    assert (
        all(str(root / name) in out for name in bad)
        and "train  30 images of 3 classes, 5 to 20 per class" in out
    )
    with pytest.raises(SystemExit) as end:
        main(["data", "verify", str(root), "--json"])
    assert end.value.code == 3
    listed = tmp_path / "list.json"
    listed.write_text(capsys.readouterr().out)
    assert read_skip(listed) == bad
    verify_without(root, bad)
    main(["data", "verify", str(root)])
    assert (
        f"test   6 images of 3 classes, 2 to 2 per class\n  {synsets(3)[0]}  train 5  test 2\n"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["verify", "nowhere"], 3, "no folder nowhere"),
        (["verfy", "."], 2, "unknown action 'verfy': did you mean 'verify'"),
        (["verify", "{empty}"], 3, "no class folders in it"),
    ],
)
def test_wrong_words_are_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    from cpsam.cli import main

    with pytest.raises(SystemExit) as end:
        main(["data", *(word.replace("{empty}", str(tmp_path)) for word in words)])
    assert end.value.code == code and message in capsys.readouterr().err
