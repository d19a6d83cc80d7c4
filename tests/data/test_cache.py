"""The cache: decoded once, never trusted, never in the way."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.image_samples import noise

from cpsam.data.storage.cache import UndecodedSplits, cache_folder, load, load_or_build
from cpsam.errors import DataError

LABELS = {"train": np.array([1, 0, 1, 1, 0]), "test": np.array([0, 1, 0])}
IMAGES = {"train": noise(5, 3, 7, 3), "test": noise(3, 3, 7, 3, seed=1)}
KEY = "0123456789abcdef" * 4


class Kitchen:
    """Counts how often something had to be decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def recipe(self) -> UndecodedSplits:
        self.decoded += 1

        def pixels(split: str) -> Iterator[np.ndarray]:
            yield IMAGES[split][:2]
            yield IMAGES[split][2:]

        return UndecodedSplits(('quoted "ä"', "b\\"), (3, 7, 3), LABELS, pixels)


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def check(found: object) -> None:
    for name in ("train", "test"):
        split = getattr(found, name)
        assert np.array_equal(split.pixels(slice(None)), IMAGES[name])
        assert split.labels.tolist() == LABELS[name].tolist()


def test_decoded_once_and_the_same_when_read(kitchen: Kitchen, own_cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    built = load_or_build("set", KEY, kitchen.recipe, lambda *step: seen.append(step))
    again = load_or_build("set", KEY, kitchen.recipe)
    assert kitchen.decoded == 1
    assert seen == [("decoding images", done, 8) for done in (2, 5, 7, 8)]
    for found in (built, again):
        check(found)
        assert found.classes == ('quoted "ä"', "b\\")
        assert found.mean == pytest.approx((IMAGES["train"] / 255).mean((0, 1, 2)))
        assert found.std == pytest.approx((IMAGES["train"] / 255).std((0, 1, 2)))
        assert found.train.images.is_contiguous(memory_format=torch.channels_last)
    assert built.fingerprint == again.fingerprint
    assert only_file(own_cache).name == "set-0123456789abcdef01234567.safetensors"


def test_another_key_is_another_entry(kitchen: Kitchen, own_cache: Path) -> None:
    load_or_build("set", KEY, kitchen.recipe)
    load_or_build("set", KEY[::-1], kitchen.recipe)
    assert kitchen.decoded == 2 and len(list(own_cache.iterdir())) == 2


def test_the_file_is_a_safetensors_file(kitchen: Kitchen, own_cache: Path) -> None:
    load_or_build("set", KEY, kitchen.recipe)
    with safe_open(only_file(own_cache), "np") as file:
        assert np.array_equal(file.get_tensor("test.images"), IMAGES["test"])
        assert np.array_equal(file.get_tensor("train.labels"), LABELS["train"])


def test_a_flipped_bit_anywhere_and_a_cut_anywhere_are_noticed_and_mended(
    kitchen: Kitchen, own_cache: Path
) -> None:
    load_or_build("set", KEY, kitchen.recipe)
    path = only_file(own_cache)
    sound = path.read_bytes()
    (length,) = struct.unpack("<Q", sound[:8])
    used = len(sound[8 : 8 + length].rstrip())
    places = [*range(8), *range(8, 8 + used, 7), *range(8 + length, len(sound), 5), len(sound) - 1]
    for place in places:
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        found = load(path)
        # a letter in a header key that means nothing, such as the format of a tensor that is known
        if found is not None:
            check(found)
            assert found.fingerprint == load_or_build("set", KEY, kitchen.recipe).fingerprint
    for size in (0, 5, 8, 8 + used // 2, 8 + length, len(sound) - 1):
        path.write_bytes(sound[:size])
        assert load(path) is None
    before = kitchen.decoded
    check(load_or_build("set", KEY, kitchen.recipe))
    assert kitchen.decoded == before + 1
    assert path.read_bytes() == sound


def test_what_was_changed_in_pixels_labels_and_statistics_is_not_believed(
    kitchen: Kitchen, own_cache: Path
) -> None:
    load_or_build("set", KEY, kitchen.recipe)
    path = only_file(own_cache)
    sound = path.read_bytes()
    start = 8 + struct.unpack("<Q", sound[:8])[0]
    header = json.loads(sound[8:start])
    for name in ("train.images", "test.images", "train.labels", "test.labels"):
        for place in (header[name]["data_offsets"][0], header[name]["data_offsets"][1] - 1):
            damaged = bytearray(sound)
            damaged[start + place] ^= 1
            path.write_bytes(damaged)
            assert load(path) is None
    digit = sound.index(b"mean") + 13
    path.write_bytes(
        sound[:digit] + (b"7" if sound[digit : digit + 1] != b"7" else b"8") + sound[digit + 1 :]
    )
    assert load(path) is None


def test_writing_to_the_images_in_memory_does_not_reach_the_file(
    kitchen: Kitchen, own_cache: Path
) -> None:
    found = load_or_build("set", KEY, kitchen.recipe)
    before = only_file(own_cache).read_bytes()
    found.train.images.zero_()
    assert only_file(own_cache).read_bytes() == before


def test_a_build_that_fails_leaves_nothing_behind(own_cache: Path) -> None:
    def fail(split: str) -> Iterator[np.ndarray]:
        yield IMAGES[split][:2]
        raise DataError("image 3 is bad")

    with pytest.raises(DataError, match="image 3 is bad"):
        load_or_build("set", KEY, lambda: UndecodedSplits(("a", "b"), (3, 7, 3), LABELS, fail))
    assert list(own_cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_stop(
    kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CPSAM_CACHE", str(tmp_path / "file" / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.warns(
        UserWarning,
        match=(
            r"images of set are not kept \(.*Not a directory.*CPSAM_CACHE can name another folder"
        ),
    ):
        found = load_or_build("set", KEY, kitchen.recipe)
    check(found)
    assert list(temporary.iterdir()) == []


def test_no_room_anywhere_is_a_data_error(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cpsam.data.storage.cache.write_pixels", full)
    with (
        pytest.warns(UserWarning),
        pytest.raises(DataError, match=r"no room for the decoded images of set \(.*No space left"),
    ):
        load_or_build("set", KEY, kitchen.recipe)


def test_the_folder_is_the_one_named_else_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("CPSAM_CACHE", "~/elsewhere")
    assert cache_folder() == Path("/home/someone/elsewhere")
    monkeypatch.delenv("CPSAM_CACHE")
    assert cache_folder() == Path("/home/someone/.cache/cpsam")
