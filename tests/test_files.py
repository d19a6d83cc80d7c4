"""What reading and writing promise: regular files only, a limit, whole or old content, and never
through a link.
"""

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from cpsam.errors import DataError
from cpsam.files import (
    hash_json,
    parse_json,
    read_file,
    read_json,
    remove_leftovers,
    replacing,
    write_atomically,
    write_durably,
    write_json,
)


def test_a_fifo_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(DataError, match="must be a regular file; it is a FIFO"):
        read_file(tmp_path / "a", 10)


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a device"):
        read_file(tmp_path / "a", 10)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is a folder"):
        read_file(tmp_path, 10)


def test_the_limit_is_the_largest_size_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(DataError, match="must have at most 4 bytes"):
        read_file(tmp_path / "a", 4)


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", '{"a": -Infinity}', "[" * 100_000, "", "{", b"\xff"]
)
def test_what_is_not_strict_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_read_json_returns_what_write_json_wrote(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json") is None
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}


@pytest.mark.parametrize("content", [b"[1]", b"3", b'{"a": NaN}', b'{"a": 1', b'{"a":' * 50_000])
def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: not "):
        read_json(tmp_path / "a.json")


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_writing_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    (tmp_path / "a").symlink_to(outside)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and not (tmp_path / "a").is_symlink()
    assert outside.read_bytes() == b"kept"
    (tmp_path / "b").symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_durably(tmp_path / "b", b"new")
    assert outside.read_bytes() == b"kept"


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (
        tmp_path / "a"
    ).read_bytes() == b"old"


def test_a_folder_takes_the_name_of_a_folder_a_file_or_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for number, old in enumerate(("nothing", "file", "folder", "link")):
        path = tmp_path / old
        if old == "file":
            path.write_bytes(b"old")
        elif old == "folder":
            path.mkdir()
            (path / "old").touch()
        elif old == "link":
            path.symlink_to(outside)
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "new").write_text(str(number))
        assert [each.name for each in path.iterdir()] == ["new"] and not path.is_symlink()
    assert not list(outside.iterdir())


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as temporary:
        temporary.mkdir()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_one_name_are_removed(tmp_path: Path) -> None:
    for name in ("a", "ab"):
        with contextlib.suppress(RecursionError), replacing(tmp_path / name) as temporary:
            temporary.with_name(f".writing-{name}-0123abcd").touch()
            raise RecursionError
    remove_leftovers(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == [".writing-ab-0123abcd"]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_hashes_that_name_stored_things_stay() -> None:
    known = "21501dbaf73f5223934d22283f01caff4132bc1de4a9550c1ed0dffeb397a323"
    assert hash_json({"b": 1, "a": 2}) == hash_json({"a": 2, "b": 1}) == known
    assert hash_json([1], "salt") == hashlib.sha256(b"salt[1]").hexdigest()
