"""A person's own images."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.image_samples import noise, png, png_header_of

from cpsam.data import load_dataset
from cpsam.errors import DataError, UserError


def write(path: Path, image: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def flat(value: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes divided into train/ and val/; every image is of one grey level, so that it can be
    told apart.
    """
    root = tmp_path / "pictures"
    for index, name in enumerate(["cat", "dog", "emu"]):
        for number in range(4):
            write(root / f"train/{name}/{number}.png", flat(10 * index + number))
    for number in range(2):
        write(root / f"val/cat/{number}.png", flat(100 + number))
        write(root / f"val/emu/{number}.png", flat(120 + number))
    return root


def levels(split: object) -> list[int]:
    return split.pixels(slice(None))[:, 0, 0, 0].tolist()


def test_train_and_val_are_used_where_they_are(tree: Path) -> None:
    dataset = load_dataset("folder", tree, image_size=16)
    assert dataset.classes == ("cat", "dog", "emu")
    assert levels(dataset.train) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert levels(dataset.evaluation) == [100, 101, 120, 121]
    assert dataset.evaluation.labels.tolist() == [
        0,
        0,
        2,
        2,
    ]  # by name, though val has fewer classes
    assert (dataset.padding, dataset.flip, dataset.note, dataset.image_size) == (
        2,
        True,
        "",
        (16, 16),
    )


def test_test_is_another_name_for_val_and_val_comes_first(tree: Path) -> None:
    write(tree / "test/dog/1.png", flat(200))
    assert len(load_dataset("folder", tree, image_size=8).evaluation) == 4
    (tree / "val").rename(tree / ".val")
    assert levels(load_dataset("folder", tree, image_size=8).evaluation) == [200]


@pytest.mark.parametrize("inner", ["", "train"])
def test_otherwise_a_stratified_fifth_is_held_out_and_said(tmp_path: Path, inner: str) -> None:
    for name, count in {"a": 20, "b": 11, "train": 9}.items():
        for number in range(count):
            write(
                tmp_path / "p" / inner / name / f"{number:02}.png",
                flat(number + 100 * (name == "b")),
            )
    dataset = load_dataset("folder", tmp_path / "p", image_size=8)
    assert np.bincount(dataset.evaluation.labels).tolist() == [4, 2, 2] and np.bincount(
        dataset.train.labels
    ).tolist() == [16, 9, 7]
    assert (
        dataset.note == "no val/ in p: a stratified fifth of its images, 8 of 40, is the test split"
    )
    seen = sorted(
        zip(
            [*dataset.train.labels.tolist(), *dataset.evaluation.labels.tolist()],
            levels(dataset.train) + levels(dataset.evaluation),
            strict=True,
        )
    )
    assert seen == sorted(
        [(0, n) for n in range(20)] + [(1, 100 + n) for n in range(11)] + [(2, n) for n in range(9)]
    )
    assert load_dataset("folder", tmp_path / "p", image_size=8).fingerprint == dataset.fingerprint


def test_hidden_files_and_files_that_are_not_images_are_passed_over(tree: Path) -> None:
    before = load_dataset("folder", tree, image_size=8).fingerprint
    (tree / "train/.hidden").mkdir()
    for name in (
        "train/cat/.DS_Store",
        "train/cat/._0.png",
        "train/cat/labels.txt",
        "train/README.md",
    ):
        (tree / name).write_text("not an image")
    assert load_dataset("folder", tree, image_size=8).fingerprint == before


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp"])
def test_every_kind_of_file_is_read(tree: Path, suffix: str) -> None:
    write(tree / f"train/cat/9.{suffix}", flat(77))
    assert abs(levels(load_dataset("folder", tree, image_size=8).train)[4] - 77) <= 1


def test_the_middle_square_of_the_image_is_kept(tree: Path) -> None:
    image = flat(0, height=32, width=64)
    image[:, 16:48] = 200
    write(tree / "train/cat/9.png", image)
    write(tree / "train/cat/a.png", image.transpose(1, 0, 2).copy())
    out = load_dataset("folder", tree, image_size=16).train.pixels(np.array([4, 5]))
    assert (out[:, 2:-2, 2:-2] == 200).all() and out.min() > 150


def test_resizing_keeps_what_the_image_shows(tree: Path) -> None:
    image = np.repeat(np.repeat(noise(8, 8, 3), 8, 0), 8, 1)  # 64x64 of flat tiles
    write(tree / "train/cat/9.png", image)
    out = load_dataset("folder", tree, image_size=64).train.pixels(np.array([4]))[0]
    assert np.array_equal(out, image)


def test_a_large_photograph_looks_as_if_decoded_in_full(tree: Path) -> None:
    y, x = np.mgrid[0:600, 0:900]
    image = np.stack([x / 900 * 255, y / 600 * 255, 128 + 100 * np.sin(x / 40)], -1).astype(
        np.uint8
    )
    write(tree / "train/cat/9.jpg", image, quality=95)
    write(tree / "train/cat/a.png", image)
    jpeg, exact = (
        load_dataset("folder", tree, image_size=32).train.pixels(np.array([4, 5])).astype(int)
    )
    assert abs(jpeg - exact).max() <= 6


def test_a_photograph_is_never_decoded_below_twice_the_size_wanted(tree: Path) -> None:
    path = write(tree / "train/cat/9.jpg", noise(90, 120, 3), quality=95)
    with Image.open(path) as image:
        exact = np.asarray(ImageOps.fit(image, (40, 40), Image.Resampling.BICUBIC))
    assert np.array_equal(
        load_dataset("folder", tree, image_size=40).train.pixels(np.array([4]))[0], exact
    )


def test_images_are_turned_upright(tree: Path) -> None:
    image = flat(0, height=24, width=24)
    image[:12] = 250  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to see it": what was above is on the right
    Image.fromarray(image).save(tree / "train/cat/9.jpg", exif=exif, quality=95)
    out = load_dataset("folder", tree, image_size=24).train.pixels(np.array([4]))[0]
    assert out[:, 14:].min() > 200 and out[:, :10].max() < 50


def test_transparent_palette_and_grey_images_become_rgb(tree: Path) -> None:
    Image.fromarray(noise(16, 16)).save(tree / "train/cat/7.png")
    Image.fromarray(noise(16, 16, 4)).save(tree / "train/cat/8.png")
    Image.fromarray(flat(90)).quantize(4).save(tree / "train/cat/9.png", transparency=b"\x00\x80")
    out = load_dataset("folder", tree, image_size=16).train.pixels(np.array([4, 5, 6]))
    assert np.array_equal(out[0], np.repeat(noise(16, 16)[..., None], 3, 2))
    assert np.array_equal(out[1], noise(16, 16, 4)[..., :3])
    assert (out[2] == 90).all()


def test_a_second_load_decodes_nothing_and_a_changed_file_is_noticed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset("folder", tree, image_size=8)
    with monkeypatch.context() as patch:
        patch.setattr("cpsam.data.sets.folder.decode_square", None)
        assert load_dataset("folder", tree, image_size=8).fingerprint == first.fingerprint
    changed = tree / "train/dog/2.png"
    stamp = changed.stat()
    write(changed, flat(99))
    os.utime(changed, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    again = load_dataset("folder", tree, image_size=8)
    assert levels(again.train)[6] == 99 and again.fingerprint != first.fingerprint
    assert load_dataset("folder", tree, image_size=16).image_size == (16, 16)


def test_images_lie_in_a_mapped_file_of_which_a_held_out_part_is_no_copy(
    tree: Path, own_cache: Path
) -> None:
    dataset = load_dataset("folder", tree, image_size=8)
    (entry,) = own_cache.iterdir()
    assert np.load(entry / "train-images.npy", mmap_mode="r").shape == (12, 8, 8, 3)
    part = dataset.train.subset(np.array([3, 1]))
    assert part._images.data_ptr() == dataset.train.images.data_ptr()


def damage(tree: Path, kind: str) -> None:
    if kind == "gone":
        tree.rename(tree.with_name("elsewhere"))
    elif kind == "empty":
        for name in ("train", "val"):
            (tree / name).rename(tree / f".{name}")
    elif kind == "empty class":
        (tree / "train/bee").mkdir()
    elif kind == "stranger":
        write(tree / "val/yak/1.png", flat(0))
    elif kind == "one class":
        for name in ("dog", "emu"):
            (tree / "train" / name).rename(tree / f".{name}")
    elif kind == "unread":
        (tree / "train/dog/x.GIF").write_bytes(b"")
    elif kind == "broken link":
        (tree / "train/dog/x.png").symlink_to(tree / "nowhere.png")
    elif kind == "not an image":
        (tree / "train/dog/x.png").write_text("hello")
    elif kind == "another format":
        Image.fromarray(flat(3)).save(tree / "train/dog/x.png", "GIF")
    elif kind == "cut short":
        (tree / "train/dog/x.png").write_bytes(png(noise(50, 50, 3))[:-1000])
    elif kind == "bomb":
        (tree / "train/dog/x.png").write_bytes(png_header_of(60_000, 60_000))
    elif kind == "16 bits":
        Image.fromarray(noise(9, 9).astype(np.uint16)).save(tree / "train/dog/x.png")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gone", r"no folder .*pictures; name one with train/CLASS/"),
        ("empty", r"pictures: no class folders in it"),
        ("empty class", r"pictures/train/bee: no images in this class folder; it has nothing"),
        ("stranger", r"pictures/val/yak: class 'yak' is not in .*pictures/train"),
        ("one class", r"pictures/train: one class folder only, 'cat'"),
        ("unread", r"train/dog/x\.GIF: \.gif is not read; convert it"),
        ("broken link", r"train/dog/x\.png: cannot be read \(No such file"),
        ("not an image", r"train/dog/x\.png: not an image that can be decoded \(cannot identify"),
        ("another format", r"train/dog/x\.png: not an image that can be decoded \(cannot identify"),
        ("cut short", r"train/dog/x\.png: not an image that can be decoded \(.*truncated"),
        ("bomb", r"train/dog/x\.png: not an image that can be decoded \(.*decompression bomb"),
        ("16 bits", r"train/dog/x\.png: image has mode 'I;16', more than 8 bits per channel"),
    ],
)
def test_bad_folders_and_images_are_named(tree: Path, kind: str, message: str) -> None:
    damage(tree, kind)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("folder", tree, image_size=8)
    assert "\n" not in str(caught.value)


def test_too_few_images_to_split(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"p/{name}/1.png", flat(0))
    with pytest.raises(
        DataError, match=r"p: too few images to split \(.*a class would be left without any"
    ):
        load_dataset("folder", tmp_path / "p", image_size=8)


def test_the_size_must_be_positive(tree: Path) -> None:
    with pytest.raises(UserError, match="image_size must be at least 1, not 0"):
        load_dataset("folder", tree, image_size=0)
