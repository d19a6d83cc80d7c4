"""A lock is held by one, waited for, told from one that was removed, and never a link."""

import errno
import fcntl
import threading
from pathlib import Path

import pytest

from cpsam.errors import DataError, UserError
from cpsam.locks import acquire


def test_a_lock_is_held_by_one_and_says_by_whom(tmp_path: Path) -> None:
    with acquire(tmp_path / "lock") as one:
        one.sign("process\x1b 7")
        with acquire(tmp_path / "lock") as other, acquire(tmp_path / "lock", 0.01) as late:
            assert one.held and not other.held and not late.held
            assert other.holder == "process 7"
    with acquire(tmp_path / "lock") as next_one:
        assert next_one.held


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    held, order = threading.Event(), []

    def wait() -> None:
        held.wait()
        with acquire(tmp_path / "lock", 10) as lock:
            order.append(("second", lock.held))

    second = threading.Thread(target=wait)
    second.start()
    with acquire(tmp_path / "lock"):
        held.set()
        second.join(0.1)
        order.append(("first", True))
    second.join()
    assert order == [("first", True), ("second", True)]


def test_a_lock_that_its_holder_removes_is_acquired_under_its_name(tmp_path: Path) -> None:
    with acquire(tmp_path / "lock") as one:
        assert one.in_place
        (tmp_path / "lock").unlink()
        assert not one.in_place
        with acquire(tmp_path / "lock") as other:
            assert other.held and other.in_place and not one.in_place


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_link_or_a_folder_is_no_lock(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "lock").mkdir()
    with pytest.raises((OSError, DataError)), acquire(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(UserError, match="does not support locks"), acquire(tmp_path / "lock"):
        pass
