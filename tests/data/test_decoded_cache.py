"""Decoded images are decoded once, an entry is never trusted, and no room is no reason to stop."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from support.image_samples import noise

from cpsam.data.storage.cache_folder import cache_folder
from cpsam.data.storage.decoded_cache import (
    Decoded,
    UndecodedSplits,
    load_or_build,
    read_entry,
)
from cpsam.errors import DataError

LABELS = {"train": np.array([1, 0, 1, 1, 0]), "test": np.array([0, 1, 0])}
IMAGES = {"train": noise(5, 3, 7, 3), "test": noise(3, 3, 7, 3, seed=1)}
KEY = "0123456789abcdef" * 4
FILES = [f"{split}-{kind}.npy" for split in ("train", "test") for kind in ("images", "labels")]


class Counted:
    """Counts how often something had to be decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def undecoded(self) -> UndecodedSplits:
        self.decoded += 1

        def pixels(split: str) -> Iterator[np.ndarray]:
            yield IMAGES[split][:2]
            yield IMAGES[split][2:]

        return UndecodedSplits(('quoted "ä"', "b\\"), (3, 7, 3), LABELS, pixels)

    def load(self) -> Decoded:
        return load_or_build("set", KEY, self.undecoded)


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def entry(counted: Counted, own_cache: Path) -> Path:
    """An entry that was just built."""
    counted.load()
    (path,) = own_cache.iterdir()
    return path


def check(found: Decoded) -> None:
    for name, split in (("train", found.train), ("test", found.test)):
        assert np.array_equal(split.pixels(slice(None)), IMAGES[name])
        assert split.labels.tolist() == LABELS[name].tolist()


def content(entry: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(entry.iterdir())}


def test_images_are_decoded_once_and_read_as_they_were(counted: Counted, own_cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    built = load_or_build("set", KEY, counted.undecoded, lambda *step: seen.append(step))
    again = counted.load()
    assert counted.decoded == 1
    assert seen == [("decoding images", done, 8) for done in (2, 5, 7, 8)]
    for found in (built, again):
        check(found)
        assert found.about.classes == ('quoted "ä"', "b\\")
        assert found.about.mean == pytest.approx((IMAGES["train"] / 255).mean((0, 1, 2)))
        assert found.about.std == pytest.approx((IMAGES["train"] / 255).std((0, 1, 2)))
        assert found.train.images.is_contiguous(memory_format=torch.channels_last)
    assert built.about == again.about
    (entry,) = own_cache.iterdir()
    assert entry.name == "set-0123456789abcdef01234567.decoded"
    assert sorted(path.name for path in entry.iterdir()) == sorted([*FILES, "about.json"])


def test_another_key_is_another_entry(counted: Counted, own_cache: Path) -> None:
    counted.load()
    load_or_build("set", KEY[::-1], counted.undecoded)
    assert counted.decoded == 2 and len(list(own_cache.iterdir())) == 2


def test_the_arrays_are_plain_npy_files(entry: Path) -> None:
    for split in ("train", "test"):
        for kind, values in (("images", IMAGES), ("labels", LABELS)):
            array = np.load(entry / f"{split}-{kind}.npy", allow_pickle=False)
            assert np.array_equal(array, values[split])


def test_a_flipped_bit_anywhere_and_a_cut_anywhere_are_noticed_and_mended(
    counted: Counted, entry: Path
) -> None:
    sound = content(entry)
    for name, data in sound.items():
        path = entry / name
        for position in [*range(0, len(data), 11), len(data) - 1]:
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            found = read_entry(entry)
            # White space in a header, and other parts that mean nothing, may differ.
            if found is not None:
                check(found)
                assert found.about == counted.load().about
        for size in (0, 5, 9, len(data) // 2, len(data) - 2):
            path.write_bytes(data[:size])
            assert read_entry(entry) is None
        before = counted.decoded
        check(counted.load())
        assert counted.decoded == before + 1
        assert content(entry) == sound


def test_changed_pixels_labels_and_statistics_are_not_believed(entry: Path) -> None:
    for name, data in content(entry).items():
        wrong = data[:-1] + bytes([data[-1] ^ 1])
        if name == "about.json":
            about = json.loads(data)
            wrong = json.dumps({**about, "mean": [0.5, 0.5, 0.5]}).encode()
        (entry / name).write_bytes(wrong)
        assert read_entry(entry) is None
        (entry / name).write_bytes(data)
        assert read_entry(entry) is not None


def test_the_same_numbers_in_another_form_are_built_again(counted: Counted, entry: Path) -> None:
    forms = {
        "train-labels.npy": LABELS["train"].astype(np.int32),
        "test-labels.npy": LABELS["test"].astype(">i8"),
        "train-images.npy": IMAGES["train"].astype(object),
        "test-images.npy": IMAGES["test"].reshape(3, -1),
    }
    for decoded, (name, values) in enumerate(forms.items(), start=2):
        np.save(entry / name, values)
        check(counted.load())
        assert counted.decoded == decoded


@pytest.mark.parametrize("name", [*FILES, "about.json"])
def test_a_missing_file_a_link_and_a_fifo_are_built_again(
    counted: Counted, entry: Path, tmp_path: Path, name: str
) -> None:
    sound = content(entry)
    outside = tmp_path / "outside"
    outside.write_bytes(sound[name])
    for put in (lambda path: None, lambda path: path.symlink_to(outside), os.mkfifo):
        (entry / name).unlink()
        put(entry / name)
        before = counted.decoded
        check(counted.load())
        assert counted.decoded == before + 1 and content(entry) == sound
    assert outside.read_bytes() == sound[name]


def test_an_entry_that_is_a_link_or_a_file_is_replaced(
    counted: Counted, entry: Path, tmp_path: Path
) -> None:
    elsewhere = entry.rename(tmp_path / "elsewhere")
    sound = content(elsewhere)
    entry.symlink_to(elsewhere)
    check(counted.load())
    assert counted.decoded == 2 and not entry.is_symlink() and content(elsewhere) == sound
    elsewhere.rename(tmp_path / "gone")
    for path in entry.iterdir():
        path.unlink()
    entry.rmdir()
    entry.write_text("in the way")
    check(counted.load())
    assert counted.decoded == 3 and content(entry) == sound


def test_several_builders_decode_once(counted: Counted, own_cache: Path) -> None:
    start, found = Barrier(4), []

    def build() -> None:
        start.wait()
        found.append(counted.load())

    threads = [Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.decoded == 1 and len(found) == 4
    for each in found:
        check(each)
    assert [path.suffix for path in own_cache.iterdir()] == [".decoded"]


def test_what_a_killed_builder_left_is_removed(counted: Counted, own_cache: Path) -> None:
    left = own_cache / ".writing-set-0123456789abcdef01234567.decoded-00000000"
    left.mkdir(parents=True)
    (left / "train-images.npy").write_bytes(b"half")
    other = own_cache / ".writing-set-76543210fedcba9876543210.decoded-00000000"
    other.mkdir()
    counted.load()
    assert not left.exists() and other.exists()


def test_writing_to_the_images_in_memory_does_not_reach_the_file(
    counted: Counted, entry: Path
) -> None:
    before = content(entry)
    counted.load().train.images.zero_()
    load_or_build("set", KEY[::-1], counted.undecoded).train.images.zero_()
    assert content(entry) == before
    check(load_or_build("set", KEY[::-1], counted.undecoded))
    assert counted.decoded == 2


def test_a_build_that_fails_leaves_nothing_behind(own_cache: Path) -> None:
    def fail(split: str) -> Iterator[np.ndarray]:
        yield IMAGES[split][:2]
        raise DataError("image 3 is bad")

    with pytest.raises(DataError, match="image 3 is bad"):
        load_or_build("set", KEY, lambda: UndecodedSplits(("a", "b"), (3, 7, 3), LABELS, fail))
    assert list(own_cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_stop(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CPSAM_CACHE", str(tmp_path / "file" / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    message = r"images of set are not kept \(.*Not a directory.*CPSAM_CACHE can name another folder"
    with pytest.warns(UserWarning, match=message):
        found = counted.load()
    check(found)
    assert list(temporary.iterdir()) == []


def test_a_full_cache_is_no_reason_to_stop(
    counted: Counted, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cpsam.data.storage.decoded_cache as module

    write = module.write_array

    def full(path: Path, *arguments: object) -> None:
        if path.is_relative_to(own_cache):
            raise OSError(28, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(module, "write_array", full)
    with pytest.warns(UserWarning, match=r"not kept \(.*No space left"):
        check(counted.load())
    assert list(own_cache.iterdir()) == []


def test_no_room_anywhere_is_a_data_error(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cpsam.data.storage.decoded_cache.write_array", full)
    message = r"no room for the decoded images of set \(.*No space left"
    with pytest.warns(UserWarning), pytest.raises(DataError, match=message):
        counted.load()


def test_a_file_of_an_earlier_version_is_left_alone(counted: Counted, own_cache: Path) -> None:
    own_cache.mkdir()
    old = own_cache / "set-0123456789abcdef01234567.safetensors"
    old.write_bytes(b"old")
    check(counted.load())
    assert old.read_bytes() == b"old"


def test_the_folder_is_the_one_named_else_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("CPSAM_CACHE", "~/elsewhere")
    assert cache_folder() == Path("/home/someone/elsewhere")
    monkeypatch.delenv("CPSAM_CACHE")
    assert cache_folder() == Path("/home/someone/.cache/cpsam")
