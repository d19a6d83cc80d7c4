"""What a file of weights may be, and what is said of one that is none."""

import argparse
import io
import os
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from cpsam.errors import DataError, UserError
from cpsam.models.protocols import as_protocol_2
from cpsam.models.state_file import read_content
from cpsam.weights_file import save_weights

STATE = {"conv.weight": torch.arange(30.0).reshape(2, 3, 5), "conv.bias": torch.tensor([1.5, -2.0])}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(
        torch.equal(value, found[key]) for key, value in STATE.items()
    )


@pytest.mark.parametrize(
    "name", ["w.pth", "w.pt", "w.bin", "w.pth.tar", "w.th", "w.ckpt", "W.PTH", "w.safetensors", "w"]
)
@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / name
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    assert same(read_content(path).tree)


def test_a_file_of_another_byte_order_holds_the_same_numbers(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "little.pth")
    with (
        zipfile.ZipFile(tmp_path / "little.pth") as little,
        zipfile.ZipFile(tmp_path / "big.pth", "w") as big,
    ):
        for entry in little.infolist():
            content = little.read(entry)
            if "/data/" in entry.filename:
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            big.writestr(
                entry.filename, b"big" if entry.filename.endswith("byteorder") else content
            )
    assert same(read_content(tmp_path / "big.pth").tree)


def test_weights_of_ours_have_their_header_and_their_shared_tensors(tmp_path: Path) -> None:
    save_weights(
        tmp_path / "w.safetensors", {**STATE, "again": STATE["conv.bias"]}, {"attention": []}
    )
    found = read_content(tmp_path / "w.safetensors")
    assert found.metadata == {"attention": []} and torch.equal(
        found.tree["again"], STATE["conv.bias"]
    )


def test_a_flipped_bit_in_weights_of_ours_is_found(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, STATE, {"attention": []})
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=r"w\.safetensors: its SHA-256 is not the one in its header"
    ):
        read_content(path)


class Filled(dict):
    """Such as the dictionaries with attributes in which trainers keep their settings."""


class Row(list):
    pass


def settings() -> dict[str, Any]:
    counts = defaultdict(list)
    counts["a"].append(1)
    return {
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
        "best": np.float64(0.7),
        "curve": np.arange(3.0),
        "counts": counts,
        "config": Filled(depth=18, widths=Row([64, 128])),
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_beside_the_tensors_are_passed_over_and_named(tmp_path: Path, legacy: bool) -> None:
    torch.save(
        {"model": STATE, **settings()},
        tmp_path / "c.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    found = read_content(tmp_path / "c.pth")
    assert same(found.tree["model"])
    assert {"argparse.Namespace", "numpy.dtype", "collections.defaultdict"} < set(found.skipped)
    assert not isinstance(found.tree["args"], argparse.Namespace) and not vars(found.tree["args"])


def test_no_stand_in_stays_known_to_torch(tmp_path: Path) -> None:
    torch.save({"model": STATE, **settings()}, tmp_path / "c.pth")
    read_content(tmp_path / "c.pth")
    assert not any(
        "argparse.Namespace" in str(known) for known in torch.serialization.get_safe_globals()
    )


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_a_newer_protocol_holds_the_same(
    tmp_path: Path, protocol: int, legacy: bool
) -> None:
    """A tensor under two names stays one, and a string that is written once and named twice is both
    times the same.
    """
    content = {
        "model": STATE,
        "again": STATE["conv.weight"],
        "key": "conv.weight",
        "sets": [{1}, frozenset([2])],
        **settings(),
    }
    content |= {"raw": b"ab", "buffer": bytearray(b"c"), "long": "a" * 300}
    torch.save(
        content,
        tmp_path / "c.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    found = read_content(tmp_path / "c.pth")
    assert (
        same(found.tree["model"])
        and found.tree["key"] == "conv.weight"
        and found.tree["long"] == "a" * 300
    )
    assert found.tree["again"].data_ptr() == found.tree["model"]["conv.weight"].data_ptr()
    assert {"argparse.Namespace", "numpy.dtype", "collections.defaultdict"} < set(found.skipped)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_newer_protocol_calls_nothing(tmp_path: Path, protocol: int) -> None:
    torch.save(
        {**STATE, "extra": Call(os.system, "touch called")},
        tmp_path / "c.pth",
        pickle_protocol=protocol,
    )
    with pytest.raises(UserError, match=r"c\.pth asks for posix\.system"):
        read_content(tmp_path / "c.pth")


def test_strings_of_a_newer_protocol_fill_no_memory() -> None:
    """A string of 64 KiB that is named 100,000 times."""
    text = b"X" + (2**16).to_bytes(4, "little") + b"a" * 2**16 + b"q\0"
    with pytest.raises(UnpicklingError, match="have more than 268,435,456 characters"):
        as_protocol_2(io.BytesIO(b"\x80\x04]" + text + b"(" + b"h\0" * 100_000 + b"e."))


@pytest.mark.parametrize(
    "function", [eval, exec, os.system, __import__("subprocess").call, getattr]
)
def test_a_file_that_calls_something_is_refused_though_its_tensors_are_good(
    tmp_path: Path, function: Any
) -> None:
    torch.save({"state_dict": STATE, "extra": Call(function, "1")}, tmp_path / "c.pth")
    with pytest.raises(
        UserError, match=r"c\.pth asks for \S+; nothing but tensors is read from it"
    ):
        read_content(tmp_path / "c.pth")


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archived() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def lying() -> bytes:
    """An archive whose directory says that an entry is much larger than the file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\0.")
        archive.filelist[0].file_size = 10**9
    return buffer.getvalue()


class Keyword:
    def __getnewargs_ex__(self) -> Any:
        return (), {"a": 1}


FOREIGN = {
    "is empty": b"",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n",
    "is an HTML or XML page": b"\n<!DOCTYPE html>\n<html>",
    "index of a sharded checkpoint": (
        b'{"metadata": {}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors"}}'
    ),
    "is a text that begins with '101'": b"101",
    "gzip": b"\x1f\x8b\x08\0\0",
    "tar archive": archived(),
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "neither a safetensors file nor one of torch": b"\x08\x07\x12\x07pytorch\0",
    "without data.pkl": zipped({"arr_0.npy": b"123"}),
    "is compressed": zipped({"a/data.pkl": b"\x80\x02}q\0." * 30}, zipfile.ZIP_DEFLATED),
    "cannot be read": b"\x80\x02\x8a\x0a\x6c",
    "room for": lying(),
    "without data.pkl is": zipped({}),
    "is a TorchScript archive": zipped({"a/data.pkl": b"", "a/constants.pkl": b""}),
    "NEWOBJ_EX; save it with torch's own pickle protocol, 2": saved(
        {**STATE, "x": Keyword()}, pickle_protocol=4
    ),
    "holds a whole module": saved(torch.nn.Linear(2, 3), _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("words", FOREIGN)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_file_of_weights_is_called_by_its_name(
    tmp_path: Path, words: str, suffix: str
) -> None:
    path = tmp_path / f"101{suffix}"
    path.write_bytes(FOREIGN[words])
    with pytest.raises(DataError) as error:
        read_content(path)
    assert (
        words in str(error.value) and path.name in str(error.value) and "\n" not in str(error.value)
    )


def test_special_files_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path, kind in (
        (tmp_path / "pipe.pth", "a FIFO"),
        (Path("/dev/zero"), "a device"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(DataError, match=f"{path.name}: must be a regular file; it is {kind}"):
            read_content(path)
    with pytest.raises(DataError, match=r"not found: .*none\.pth"):
        read_content(tmp_path / "none.pth")


def test_a_flipped_bit_is_found_though_torch_passes_over_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    data[data.index(STATE["conv.weight"].numpy().tobytes()) + 50] ^= 1
    path.write_bytes(data)
    assert not same(torch.load(path, weights_only=True))
    with pytest.raises(DataError, match=r"weights\.pth: checksum of weights/data/\d does not fit"):
        read_content(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_is_an_error_with_its_name(tmp_path: Path, form: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    data = save(STATE) if form == "safetensors" else path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"weights\.pth"):
            read_content(path)
