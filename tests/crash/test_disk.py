"""Damaged files, full disks, the order of writes, and two processes that want one folder."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support import killed_runs, processes
from support.checkpoints import save_checkpoint
from support.digests import digest
from support.tiny import tiny_residual

from cpsam.checkpoint import load_checkpoint

DAMAGES = 200


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for step in (4, 8):
        save_checkpoint(folder, step, tiny_residual(step).state_dict(), {"step": step})
    return folder


FILES = ["LATEST", "step-00000008/manifest.json", "step-00000008/tensors.safetensors"]


def damaged(data: bytes, kind: str, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return (
        data[:place]
        if kind == "cut"
        else data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
    )


@pytest.mark.parametrize("kind", ["cut", "flip"])
@pytest.mark.parametrize("name", FILES)
def test_all_damage_is_found_and_the_one_before_is_used(
    saved: Path, tmp_path: Path, name: str, kind: str
) -> None:
    folder, draw, data = tmp_path / "copy", random.Random(name + kind), (saved / name).read_bytes()
    shutil.copytree(saved, folder)
    expected = 8 if name == "LATEST" else 4
    state = tiny_residual(expected).state_dict()
    for _ in range(DAMAGES):
        (folder / name).write_bytes(damaged(data, kind, draw))
        loaded = load_checkpoint(folder)
        assert loaded is not None and loaded.step == loaded.meta["step"] == expected
        assert loaded.warnings and name.rpartition("/")[2] in loaded.warnings[0]
        assert all(torch.equal(loaded.tensors[key], tensor) for key, tensor in state.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    assert processes.end(processes.start(killed_runs.run, folder, "sgd")) == 0
    return digest(folder)


# a checkpoint is of some ten thousand bytes
@pytest.mark.parametrize("limit", [0, 1, 500, 3000, 9000])
def test_a_full_disk_is_an_error_and_what_was_saved_stays(
    tmp_path: Path, whole: str, limit: int
) -> None:
    run = tmp_path / "run"
    assert processes.end(processes.start(killed_runs.run_full, run, tmp_path, limit)) == 2
    said = json.loads((tmp_path / "error.json").read_text())
    assert re.search(
        rf"run folder {run} cannot be written \(File too large\); the last checkpoint is of"
        r" step 4$",
        said,
    ), said
    kept = load_checkpoint(run / "checkpoints")
    assert kept is not None and (kept.step, kept.warnings) == (4, [])
    assert processes.end(processes.start(killed_runs.run, run, "sgd")) == 0
    assert digest(run) == whole


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a small disk"
)
def test_a_disk_that_is_too_small_from_the_start(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "none", disk], capture_output=True
    ).returncode:
        pytest.skip("may not mount")
    try:
        assert processes.end(processes.start(killed_runs.run_noting, disk / "run", tmp_path)) == 2
        assert "cannot be written (No space left on device); " in json.loads(
            (tmp_path / "error.json").read_text()
        )
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_second_process_in_a_folder_is_refused(tmp_path: Path, whole: str) -> None:
    first = processes.start(killed_runs.run_and_wait, tmp_path / "run", tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "running.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.end(processes.start(killed_runs.run_noting, tmp_path / "run", tmp_path)) == 2
    assert f"is in use by process {first.pid} on " in json.loads(
        (tmp_path / "error.json").read_text()
    )
    (tmp_path / "go").touch()
    assert processes.end(first) == 0
    assert digest(tmp_path / "run") == whole


CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += (-?\d+)")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_by_the_system_s_own_account_contents_reach_the_disk_before_names_do(
    tmp_path: Path,
) -> None:
    tests, folder = str(Path(__file__).parents[1]), str(tmp_path / "all")
    code = (
        f"import sys; sys.path.insert(0, {tests!r}); from pathlib import Path; "
        f"from support import killed_runs; killed_runs.save_three_times(Path({folder!r}))"
    )
    calls = (
        "openat,write,pwrite64,writev,fsync,fdatasync,"
        "rename,renameat,renameat2,unlink,unlinkat,rmdir"
    )
    trace = [
        "strace",
        "-f",
        "-y",
        "-s",
        "8",
        "-e",
        f"trace={calls}",
        "-o",
        str(tmp_path / "trace"),
        sys.executable,
        "-c",
        code,
    ]
    done = subprocess.run(
        trace, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("may not trace")
    assert done.returncode == 0, done.stderr
    unsafe: set[str] = set()  # written and not yet flushed
    unnamed: set[str] = set()  # folders in which a name has changed and is not yet flushed
    renames = 0
    for line in (tmp_path / "trace").read_text().splitlines():
        found = CALL.match(line)
        if found is None or str(tmp_path / "all") not in line:
            continue
        name, arguments, _ = found.groups()
        if "write" in name:
            unsafe.add(arguments.partition("<")[2].partition(">")[0])
        elif name in ("fsync", "fdatasync"):
            flushed = arguments.partition("<")[2].partition(">")[0]
            unsafe.discard(flushed)
            unnamed.discard(flushed)
        elif name.startswith("rename"):
            source, target = re.findall(r'"([^"]+)"', arguments)
            renames += 1
            assert not {
                path for path in unsafe if path == source or path.startswith(source + "/")
            }, line
            assert not unnamed, f"{line}: an earlier name may not be on the disk yet"
            unnamed.add(str(Path(target).parent))
        elif name in ("unlink", "unlinkat", "rmdir"):
            assert not unnamed, f"{line}: what replaces it may not be on the disk yet"
    assert renames == 6 and not unsafe and not unnamed
