"""What reading and writing promise: regular files only, a limit, whole or old content, and never
through a link.
"""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from cpsam.errors import DataError, UserError
from cpsam.files import (
    is_locked_file,
    open_lock,
    parse_json,
    read_file,
    read_json,
    try_lock,
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


def test_a_lock_is_exclusive_and_a_link_is_no_lock(tmp_path: Path) -> None:
    with open_lock(tmp_path / "lock") as one, open_lock(tmp_path / "lock") as other:
        assert try_lock(one) and not try_lock(other)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        open_lock(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with (
        open_lock(tmp_path / "lock") as file,
        pytest.raises(UserError, match="does not support locks"),
    ):
        try_lock(file)


def test_a_removed_lock_is_noticed(tmp_path: Path) -> None:
    with open_lock(tmp_path / "lock") as file:
        assert is_locked_file(file, tmp_path / "lock")
        (tmp_path / "lock").unlink()
        assert not is_locked_file(file, tmp_path / "lock")
        (tmp_path / "lock").touch()
        assert not is_locked_file(file, tmp_path / "lock")
