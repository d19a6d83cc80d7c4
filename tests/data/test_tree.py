"""Every file of a tree is used, or named with its count; what can be understood in two ways is
refused.
"""

import io
import os
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_samples import noise, png

from cpsam.data import Dataset, load_dataset
from cpsam.data.storage.tree import read_tree
from cpsam.data.verify import verify
from cpsam.errors import DataError


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(9, 12, 3)).save(buffer, kind, **options)
    return buffer.getvalue()


def fill(root: Path, *paths: str, data: bytes | None = None) -> Path:
    for index, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(
            png(noise(8, 9, 3, seed=zlib.crc32(path.encode()) + index)) if data is None else data
        )
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes with two images to train on and one to measure on."""
    names = [
        f"{split}/{name}/{number}.png"
        for split, count in (("train", 2), ("val", 1))
        for name in "ab"
        for number in range(count)
    ]
    return fill(tmp_path / "p", *names)


def load(root: Path, **options: object) -> Dataset:
    return load_dataset("folder", root, image_size=8, **{"workers": 0, **options})


def counts(root: Path) -> tuple[int, int]:
    dataset = load(root)
    found = verify(root)
    assert found.faults == [] and found.notes == dataset.notes, "verify and train have one reader"
    assert (sum(found.counts["train"]), sum(found.counts["test"])) == (
        len(dataset.train),
        len(dataset.evaluation),
    )
    return len(dataset.train), len(dataset.evaluation)


def test_images_in_folders_inside_a_class_are_of_that_class(tree: Path) -> None:
    fill(tree, "train/a/deep/er/1.png", "train/b/2020/1.png", "val/b/x/1.png")
    assert counts(tree) == (6, 3)
    dataset = load(tree)
    assert dataset.classes == ("a", "b") and dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.notes == (
        (
            "3 images in folders inside a class folder, counted to that class:"
            " train/a/deep/er/1.png, …"
        ),
    )


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("jfif", "JPEG"),
        ("jpe", "JPEG"),
        ("JPG", "JPEG"),
        ("ppm", "PPM"),
        ("pgm", "PPM"),
        ("tga", "TGA"),
        ("jp2", "JPEG2000"),
        ("tif", "TIFF"),
    ],
)
def test_suffixes_of_common_tools_are_read(tree: Path, suffix: str, kind: str) -> None:
    fill(tree, f"train/a/x.{suffix}", data=encoded(kind))
    assert counts(tree) == (5, 2)
    streamed = load(tree, stream=True)
    assert next(streamed.train.batches([np.arange(5)], None)).shape == (5, 8, 8, 3)


def test_a_file_without_a_suffix_is_an_image_by_its_first_bytes(tree: Path) -> None:
    fill(tree, "train/a/jpeg", data=encoded("JPEG"))
    fill(tree, "train/a/webp", data=encoded("WEBP"))
    fill(tree, "train/a/README", data=b"text")
    fill(tree, "train/a/sound", data=b"RIFF\0\0\0\0WAVE")
    assert counts(tree) == (6, 2)
    assert load(tree).notes == (
        "not used: 2 files in 1 folder, not images by their names: train/a/README, train/a/sound",
    )


def test_what_is_not_used_is_counted_and_named(tree: Path) -> None:
    fill(
        tree,
        "train/a/x.txt",
        "train/b/y.csv",
        "val/z.xml",
        "w.json",
        "train/\x1b[31m.txt",
        data=b"{}",
    )
    fill(
        tree, "outside.png", "train/outside.jpg", "test/a/1.png", "extra/deep/1.png", "extra/2.png"
    )
    assert counts(tree) == (4, 2)
    assert load(tree).notes == (
        (
            "not used: 5 files in 5 folders, not images by their names: train/a/x.txt,"
            " train/b/y.csv, w.json, …"
        ),
        (
            "not used: 2 files in 2 folders, images outside any class folder: outside.png,"
            " train/outside.jpg"
        ),
        "not used: 2 files in 2 folders, images in extra/: extra/2.png, extra/deep/1.png",
        "not used: 1 file in 1 folder, images in test/: test/a/1.png",
    )


def test_what_systems_leave_behind_is_passed_over_in_silence(tree: Path) -> None:
    fill(
        tree,
        "train/a/Thumbs.db",
        "train/a/.DS_Store",
        "train/a/._x.jpg",
        "__MACOSX/train/a/1.png",
        "train/@eaDir/1.png",
        data=b"x",
    )
    assert counts(tree) == (4, 2) and load(tree).notes == ()


@pytest.mark.parametrize(
    "name", ["valid", "validation", "dev", "test", "testing", "eval", "VAL", "Valid"]
)
@pytest.mark.parametrize("train", ["train", "Training"])
def test_the_splits_have_the_names_of_common_tools(tree: Path, name: str, train: str) -> None:
    (tree / "val").rename(tree / name)
    (tree / "train").rename(tree / train)
    assert counts(tree) == (4, 2) and load(tree).notes == ()


def test_test_images_without_labels_are_not_measured_on(tree: Path) -> None:
    (tree / "val").rename(tree / ".val")
    fill(
        tree,
        *(f"train/{name}/{number}.png" for name in "ab" for number in range(2, 5)),
        "test/1.png",
    )
    assert counts(tree) == (8, 2)
    assert load(tree).notes == (
        "no val/ in p: a stratified fifth of its images, 2 of 10, is the test split",
        "not used: 1 file in 1 folder, images in test/: test/1.png",
    )


def test_a_class_without_images_to_measure_on_is_said(tree: Path) -> None:
    fill(tree, "train/c/1.png", "train/d/1.png")
    assert counts(tree) == (6, 2)
    assert load(tree).notes == ("2 of 4 classes have no images in val/ to measure on: c, d",)


TWO_WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "two to measure on": (
        lambda root: fill(root, "valid/a/1.png"),
        r"both val/ and valid/ may be measured on; rename one",
    ),
    "two to train on": (
        lambda root: fill(root, "training/a/1.png"),
        r"both train/ and training/ may be the train split",
    ),
    "no train": (
        lambda root: (root / "train").rename(root / "stuff"),
        r"val/ has folders in it, but there is no train/ beside it",
    ),
    "one deeper": (
        lambda root: nest(root),
        r"p/inner: holds splits; name it as the folder of the data set",
    ),
    "class first": (lambda root: fill(root.with_name("q"), *CLASS_FIRST), r"q/a: holds splits"),
    "flat": (
        lambda root: fill(root.with_name("q"), *FLAT),
        r"q/train2017: no class folders in it; it has 0.png, 1.png, 2.png, …; images",
    ),
    "flat val": (
        lambda root: fill(root.with_name("q"), "train/a/1.png", "train/b/1.png", "val/1.png"),
        r"q/val: no class folders in it",
    ),
    "same name": (
        lambda root: fill(
            root, *(f"train/{unicodedata.normalize(form, 'é')}/1.png" for form in ("NFC", "NFD"))
        ),
        "in Unicode",
    ),
    "link to a class": (
        lambda root: (root / "train/c").symlink_to(root / "train/a"),
        r"train/c: the same folder as .*train/a, through",
    ),
    "loop": (
        lambda root: (root / "train/a/up").symlink_to(root / "train/a"),
        r"train/a/up: the same folder as .*train/a, through a link",
    ),
    "loop to the top": (
        lambda root: (root / "train/a/up").symlink_to(root / "train"),
        r"train/a/up.*: the same folder as",
    ),
    "other case": (
        lambda root: (root / "val/a").rename(root / "val/A"),
        r"val/A: class 'A' is not in .*train, which has 'a'",
    ),
}
CLASS_FIRST = [f"{name}/{split}/1.png" for name in "ab" for split in ("train", "test")]
FLAT = [f"{split}2017/{number}.png" for split in ("train", "val") for number in range(5)]


def nest(root: Path) -> None:
    root.rename(root.with_name("moved"))
    root.mkdir()
    root.with_name("moved").rename(root / "inner")


@pytest.mark.parametrize("kind", TWO_WAYS)
def test_what_can_be_understood_in_two_ways_is_refused(tree: Path, kind: str) -> None:
    change, message = TWO_WAYS[kind]
    change(tree)
    root = tree.with_name("q") if tree.with_name("q").exists() else tree
    with pytest.raises(DataError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    try:
        assert any(str(fault) in str(caught.value) for fault in verify(root).faults)
    except DataError as error:
        assert str(error) == str(caught.value)


def test_names_of_classes(tree: Path) -> None:
    fill(
        tree,
        f"train/{unicodedata.normalize('NFC', 'café au lait')}/1.png",
        f"val/{unicodedata.normalize('NFD', 'café au lait')}/1.png",
    )
    fill(tree, "train/A/1.png", "val/A/1.png")
    (tree.with_name("elsewhere")).mkdir()
    fill(tree.with_name("elsewhere"), "1.png")
    (tree / "train/link").symlink_to(tree.with_name("elsewhere"))
    assert counts(tree) == (7, 4)
    assert load(tree).classes[:3] == ("A", "a", "b") and load(tree).classes[-1] == "link"
    assert load(tree).notes[0] == "classes 'A' and 'a' differ in case or spaces alone"


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.png", b"\x1b]0;x\x07.png", b"two\nlines.png", "日本.png".encode()]
)
def test_any_name_of_a_file_is_read(tree: Path, name: bytes) -> None:
    (tree / os.fsdecode(b"train/a/" + name)).write_bytes(png(noise(8, 8, 3)))
    assert counts(tree) == (5, 2)
    assert len(next(load(tree, stream=True).train.batches([np.arange(5)], None))) == 5


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (lambda path: os.mkfifo(path), "must be a regular file; it is a FIFO"),
    "a link to a FIFO": (
        lambda path: (
            os.mkfifo(path.with_suffix(".pipe")),
            path.symlink_to(path.with_suffix(".pipe")),
        ),
        "it is a FIFO",
    ),
    "a link to a device": (
        lambda path: path.symlink_to("/dev/zero"),
        "must be a regular file; it is a device",
    ),
    "a broken link": (lambda path: path.symlink_to("nowhere"), r"cannot be read \(No such file"),
    "a link to itself": (lambda path: path.symlink_to(path), r"cannot be read \(Too many levels"),
    "a huge file": (
        lambda path: (path.touch(), os.truncate(path, 2**33)),
        "must have at most 536,870,912 bytes; it has 8,589,934,592",
    ),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_are_refused_before_they_are_read(tree: Path, kind: str) -> None:
    make, reason = SPECIAL[kind]
    make(tree / "train/a/x.jpg")
    for stream in (False, True):
        with pytest.raises(DataError, match=rf"train/a/x\.jpg: .*{reason}"):
            load(tree, stream=stream)
    (fault,) = verify(tree).faults
    assert fault.image == "train/a/x.jpg"
    assert len(load(tree, skip={"train/a/x.jpg"}).train) == 4


def test_a_folder_that_cannot_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.scandir

    def scandir(path: Path) -> object:
        if str(path).endswith("train/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(DataError, match=r"train/b: cannot be read \(Permission denied\)"):
        load(tree)


@pytest.mark.parametrize("inside", ["", "train/"])
@pytest.mark.parametrize("kind", ["cache", "empty cache", "run", "runs", "study"])
def test_our_own_folders_may_lie_among_the_images(
    tree: Path, monkeypatch: pytest.MonkeyPatch, inside: str, kind: str
) -> None:
    own = tree / f"{inside}own"
    own.mkdir()
    if "cache" in kind:
        monkeypatch.setenv("CPSAM_CACHE", str(own))
        if kind == "cache":
            load(tree)
            monkeypatch.delenv("CPSAM_CACHE")
    else:
        where = own / "deep/run-1" if kind == "runs" else own
        names = (
            ("plan.json", ".writing")
            if kind == "study"
            else ("config.json", "environment.json", "checkpoints/1/x.safetensors")
        )
        fill(where, *names, data=b"{}")
    assert counts(tree) == (4, 2) and load(tree).notes == () and load(tree).classes == ("a", "b")


def test_a_cache_in_the_root_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPSAM_CACHE", str(tree))
    assert counts(tree) == (4, 2) and counts(tree) == (4, 2) and load(tree).notes == ()


def write_tiny(root: Path) -> Path:
    """tiny-imagenet's layout."""
    for name in ("n01", "n02"):
        fill(
            root,
            *(f"train/{name}/images/{name}_{number}.JPEG" for number in range(3)),
            data=encoded("JPEG"),
        )
        fill(root, f"train/{name}/{name}_boxes.txt", data=b"0")
    fill(root, *(f"val/images/val_{number}.JPEG" for number in range(4)), data=encoded("JPEG"))
    fill(root, "test/images/test_0.JPEG", data=encoded("JPEG"))
    lines = [f"val_{number}.JPEG\tn0{1 + number % 2}\t0\t0\t62\t62\n" for number in range(4)]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "tiny")
    tree = read_tree(root)
    assert (
        tree.parts["train"].classes == ("n01", "n02")
        and tree.parts["train"].labels.tolist() == [0] * 3 + [1] * 3
    )
    assert tree.parts["test"].paths == [f"val/images/val_{number}.JPEG" for number in (0, 2, 1, 3)]
    assert tree.parts["test"].labels.tolist() == [0, 0, 1, 1]
    assert [note.partition(":")[0] for note in tree.notes] == [
        "6 images in folders inside a class folder, counted to that class",
        "not used",
        "not used",
    ]
    assert len(load_dataset("imagenet", root, image_size=8, workers=0).evaluation) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val_0.JPEG\tn01\n", r"val/images/val_1\.JPEG: no line in val_annotations\.txt"),
        ("val_9.JPEG\tn01\n", r"val_annotations\.txt: names 'val_9\.JPEG', which is not there"),
        ("val_0.JPEG\tn01\nval_0.JPEG\tn02\n", r"val_annotations\.txt: names an image twice"),
        ("val_0.JPEG n01\n", r"val_annotations\.txt: not lines of an image and its class"),
        ("val_0.JPEG\tn07\n", r"class 'n07' is not in"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = write_tiny(tmp_path / "tiny")
    (root / "val/val_annotations.txt").write_text(text)
    for number in range(4):
        if text.endswith(("n07\n", "val_9.JPEG\tn01\n")) and f"val_{number}." not in text:
            (root / f"val/images/val_{number}.JPEG").unlink()
    with pytest.raises(DataError, match=message):
        load(root)
