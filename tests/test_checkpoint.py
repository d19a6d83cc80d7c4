"""A checkpoint comes back as it went, or is found out to be damaged and the one before is used."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.checkpoints import save_checkpoint
from torch import Tensor

from cpsam import checkpoint
from cpsam.checkpoint import load_checkpoint
from cpsam.errors import DataError, UserError
from cpsam.weights_file import load_weights, save_weights

META = {
    "optimizer": {"0/step": 3.5},
    "attention": [{"at": "layer3.1", "attention": "cpsam", "arguments": {"reduction": 4}}],
}


def tensors(step: int = 0) -> dict[str, Tensor]:
    base = torch.arange(2 * 3 * 5 * 7, dtype=torch.float32).reshape(2, 3, 5, 7) + step
    return {
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "transposed": base.transpose(0, 3),
        "bfloat16": (base / 7).bfloat16(),
        "scalar": torch.tensor(1234567890123, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "also empty": torch.zeros(0, 4),
        "same": base,
        "same again": base,
        "part": base[1:],
        "parameter": torch.nn.Parameter(base[0, 0]),
    }


def assert_equal(loaded: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].is_contiguous(), name


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert (
        save_checkpoint(tmp_path / "new" / "folder", 391, tensors(), META)
        == tmp_path / "new" / "folder" / "step-00000391"
    )
    loaded = load_checkpoint(tmp_path / "new" / "folder")
    assert loaded is not None
    assert_equal(loaded.tensors, tensors())
    assert (loaded.step, loaded.meta, loaded.warnings) == (391, META, [])


def test_a_shared_tensor_is_stored_once(tmp_path: Path) -> None:
    big = torch.randn(1000)
    path = save_checkpoint(tmp_path, 1, {"a": big, "b": big, "c": big[:]}, {})
    assert (path / "tensors.safetensors").stat().st_size < 5000
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert_equal(loaded.tensors, {"a": big, "b": big, "c": big})


def test_there_is_no_checkpoint_where_none_was_saved(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "missing") is None


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 20, 100, 100_000_000):
        save_checkpoint(tmp_path, step, tensors(step), {}, keep=2)
    assert steps(tmp_path) == ["LATEST", "step-00000100", "step-100000000"]
    save_checkpoint(tmp_path, 100_000_001, tensors(), {}, keep=1)
    assert steps(tmp_path) == ["LATEST", "step-100000001"]


def test_saving_an_earlier_step_removes_the_later_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, tensors(step), {}, keep=3)
    save_checkpoint(tmp_path, 2, tensors(77), {}, keep=3)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert steps(tmp_path) == ["LATEST", "step-00000001", "step-00000002"]
    assert_equal(loaded.tensors, tensors(77))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for step in (4, 8):
        save_checkpoint(folder, step, tensors(step), META)
    return folder


def spoil(saved: Path, folder: Path, name: str, data: bytes) -> list[str]:
    """A copy with one file changed; it must load as step 4, or as step 8 where only LATEST was hit.
    Returns the warnings.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    (folder / name).write_bytes(data)
    loaded = load_checkpoint(folder)
    assert loaded is not None
    assert loaded.step == (8 if name == "LATEST" else 4)
    assert_equal(loaded.tensors, tensors(loaded.step))
    assert loaded.meta == META
    assert loaded.warnings
    return loaded.warnings


FILES = ["LATEST", "step-00000008/manifest.json", "step-00000008/tensors.safetensors"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(FILES),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    cut=st.booleans(),
)
def test_every_truncation_and_every_flipped_bit_is_found(
    saved: Path, tmp_path: Path, name: str, where: float, bit: int, cut: bool
) -> None:
    data = bytearray((saved / name).read_bytes())
    place = int(where * len(data))
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    warnings = spoil(saved, tmp_path / "spoiled", name, bytes(data))
    assert name.rpartition("/")[2] in warnings[0]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("LATEST", b"", "LATEST is damaged: its hash does not fit"),
        (
            "step-00000008/manifest.json",
            b"",
            r"checkpoint .*step-00000008 is damaged: manifest.json: its hash does not fit",
        ),
        (
            "step-00000008/tensors.safetensors",
            b"abc",
            r"step-00000008 is damaged: tensors.safetensors has 3 bytes, not \d+",
        ),
        (
            "step-00000008/manifest.json",
            checkpoint.seal({"format": 2}),
            "manifest.json has format 2, and this version reads 1",
        ),
        ("LATEST", checkpoint.seal({"step": 9}), "LATEST names step 9, which is not there"),
    ],
)
def test_the_warning_says_what_was_wrong(
    saved: Path, tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    assert re.search(says, spoil(saved, tmp_path / "spoiled", name, data)[0])


def test_missing_files_are_found(saved: Path, tmp_path: Path) -> None:
    for name, says in zip(
        FILES,
        ("LATEST is missing", "manifest.json is missing", "tensors.safetensors is missing"),
        strict=True,
    ):
        shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
        (tmp_path / name).unlink()
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        assert loaded.warnings[0].endswith(says)


def test_if_none_is_whole_that_is_an_error_and_no_fresh_start(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("step-*/manifest.json"):
        path.write_bytes(b"{}")
    with pytest.raises(
        DataError,
        match=rf"no checkpoint is whole \(.*step-00000008.*step-00000004.*\); remove {tmp_path}",
    ) as caught:
        load_checkpoint(tmp_path)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_one(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if failing == "fsync" else Path, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path, 12, tensors(12), {})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.step == 8  # LATEST was not moved on
    save_checkpoint(tmp_path, 12, tensors(12), {})
    assert steps(tmp_path) == ["LATEST", "step-00000008", "step-00000012"]


def test_files_reach_the_disk_before_their_names_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_rename, real_replace = os.fsync, Path.rename, Path.replace

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        done.append(
            "fsync " + re.sub(r"-[0-9a-f]{8}$", "", name)
            if name.startswith(".writing-")
            else f"fsync {name}"
        )
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(
        Path, "rename", lambda path, to: done.append(f"rename {to.name}") or real_rename(path, to)
    )
    monkeypatch.setattr(
        Path, "replace", lambda path, to: done.append(f"rename {to.name}") or real_replace(path, to)
    )
    save_checkpoint(tmp_path / "all", 7, tensors(), {})
    assert done == [
        f"fsync {tmp_path.name}",  # in which the folder of all checkpoints is new
        "fsync tensors.safetensors",
        "fsync manifest.json",
        "fsync .writing-step-00000007",
        "rename step-00000007",
        "fsync all",
        "fsync .writing-LATEST",
        "rename LATEST",
        "fsync all",
    ]


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-step-00000003").mkdir()
    (tmp_path / ".writing-step-00000003" / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / ".writing-LATEST").write_bytes(b"half")
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 3, tensors(), {})
    assert steps(tmp_path) == ["LATEST", "step-00000003"]


def test_weights_come_back_with_what_is_inserted(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", tensors(), META)
    loaded, meta = load_weights(tmp_path / "w.safetensors")
    assert_equal(loaded, tensors())
    assert meta == META


def test_weights_of_others_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, 2)}, tmp_path / "w.safetensors")
    loaded, meta = load_weights(tmp_path / "w.safetensors")
    assert_equal(loaded, {"a": torch.ones(3, 2)})
    assert meta == {}


@pytest.mark.parametrize("spoiled", ["missing", "cut", "text"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, spoiled: str) -> None:
    path = tmp_path / "w.safetensors"
    if spoiled != "missing":
        save_weights(path, tensors(), META)
        path.write_bytes(path.read_bytes()[:-9] if spoiled == "cut" else b"a text, and not short")
    with pytest.raises(
        DataError,
        match=r"weights .*w\.safetensors: (cannot be read|not a whole \.safetensors file)",
    ):
        load_weights(path)


STRAY: dict[str, Callable[[Path], None]] = {
    "step-00000010": lambda path: path.write_text("") and None,
    "step-00000011": lambda path: path.symlink_to("/etc"),
    "step-00000012": lambda path: path.write_text("") and None,
    "step-xyz": lambda path: path.mkdir(),
    "step-12": lambda path: path.mkdir(),
    "step-٠٠٠٠٠٠١٢": lambda path: path.mkdir(),
    ".writing-step-00000012": lambda path: path.symlink_to("/etc"),
    ".writing-LATEST": lambda path: path.mkdir(),
}


def test_stray_names_stop_neither_a_load_nor_a_save(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for name, make in STRAY.items():
        make(tmp_path / name)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and (loaded.step, loaded.warnings) == (8, [])
    save_checkpoint(tmp_path, 12, tensors(12), {})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and (loaded.step, loaded.warnings) == (12, [])
    assert Path("/etc/passwd").exists()


def test_a_folder_of_checkpoints_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="checkpoints is a link"):
        save_checkpoint(tmp_path / "checkpoints", 3, tensors(), {})
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors", "LATEST"])
def test_an_unreadable_checkpoint_falls_back_like_a_damaged_one(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    real = os.open

    def broken(path: Path, *arguments: int) -> int:
        if path in (tmp_path / "step-00000008" / name, tmp_path / name):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", broken)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded.step == (8 if name == "LATEST" else 4)
    assert loaded.warnings[0].endswith(f"cannot be read ({os.strerror(number)})")


def test_a_folder_that_cannot_be_listed_is_no_fresh_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        load_checkpoint(tmp_path)


def test_other_tools_read_sealed_weights(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", tensors(), META)
    state = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(state[name], tensors()[name]) for name in state)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert set(file.metadata()) == {"cpsam", "cpsam.sha256"}


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, tensors(), META)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
