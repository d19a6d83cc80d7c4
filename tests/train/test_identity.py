"""Every file of a run names its run, and every flipped bit in it is found."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import RECIPE, tiny_dataset, tiny_model
from support.tiny_runs import assert_same_run, interrupt, run

from cpsam.checkpoint import seal
from cpsam.errors import DataError, StoppedError, UserError
from cpsam.files import read_json
from cpsam.locks import acquire
from cpsam.train.metrics import read_metrics, read_summary
from cpsam.train.run_folder import open_run
from cpsam.train.train import train
from cpsam.weights_file import load_weights

FLIPS = 150


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after two of three epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StoppedError):
        run(folder, on_event=interrupt("epoch", 2))
    return folder


def config(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "config.json")
    assert found is not None
    return found


READERS: dict[str, Callable[[Path], Any]] = {
    "weights.safetensors": lambda folder: load_weights(folder / "weights.safetensors"),
    "best.safetensors": lambda folder: load_weights(folder / "best.safetensors"),
    "metrics.jsonl": lambda folder: read_metrics(folder, config(folder)),
    "summary.json": lambda folder: read_summary(folder, config(folder)),
}


@pytest.mark.parametrize("name", READERS)
def test_every_flipped_bit_is_found_or_changes_nothing(
    finished: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    data, draw, missed = (tmp_path / name).read_bytes(), random.Random(name), []
    before = READERS[name](tmp_path)
    header = range(min(len(data), 900)) if name.endswith("safetensors") else range(len(data))
    places = [(byte, bit) for byte in header for bit in range(8)]
    places = draw.sample(places, FLIPS) + [
        (draw.randrange(len(data)), draw.randrange(8)) for _ in range(FLIPS)
    ]
    for byte, bit in places:
        (tmp_path / name).write_bytes(
            data[:byte] + bytes([data[byte] ^ 1 << bit]) + data[byte + 1 :]
        )
        try:
            after = READERS[name](tmp_path)
        except DataError as error:
            assert name in str(error)
            continue
        if name.endswith("safetensors") or after != before:
            missed.append((byte, bit))
    assert not missed


def forge(folder: Path, name: str, other: Path) -> None:
    """Put a file of another run in place of this run's."""
    if (folder / name).is_dir():
        shutil.rmtree(folder / name)
        shutil.copytree(other / name, folder / name)
    else:
        shutil.copy(other / name, folder / name)


@pytest.mark.parametrize(
    ("name", "says"),
    [("checkpoints", "is of another run"), ("metrics.jsonl", "line 1: its sha256 does not fit")],
)
def test_files_of_another_seed_are_refused_when_a_run_continues(
    stopped: Path, tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(StoppedError):
        options: dict[str, Any] = {"seed": 6, "config": {"what": "tiny"}, "device": "cpu"}
        train(
            tiny_model(),
            tiny_dataset(),
            RECIPE,
            folder=tmp_path / "other",
            on_event=interrupt("epoch", 2),
            **options,
        )
    shutil.copytree(stopped, tmp_path / "run")
    forge(tmp_path / "run", name, tmp_path / "other")
    with pytest.raises(DataError, match=says):
        run(tmp_path / "run")


def test_one_checkpoint_of_another_run_is_passed_over(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    newest = max((tmp_path / "checkpoints").glob("step-*")) / "manifest.json"
    manifest = json.loads(newest.read_bytes().splitlines()[0])
    newest.write_bytes(seal({**manifest, "meta": {**manifest["meta"], "identity": "0" * 64}}))
    events: list[dict[str, Any]] = []
    run(tmp_path, on_event=events.append)
    assert events[0]["step"] == 4 and events[0]["warnings"] == [
        f"checkpoint {newest.parent} is of another run"
    ]


def test_a_summary_of_another_run_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    settings = config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**settings, "seed": 6}))
    with pytest.raises(
        DataError,
        match=r"summary\.json: it is of another run: its identity is not that of config\.json",
    ):
        read_summary(tmp_path, config(tmp_path))


def without_identity(folder: Path) -> None:
    """Leaves a run as versions before the identity wrote it."""
    for manifest in folder.glob("checkpoints/step-*/manifest.json"):
        content = json.loads(manifest.read_bytes().splitlines()[0])
        del content["meta"]["identity"]
        manifest.write_bytes(seal(content))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["timing"]["sha256"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_of_an_older_version_continues_with_the_same_bits_and_a_note(
    stopped: Path, tmp_path: Path
) -> None:
    reference, model, events = tiny_model(), tiny_model(), []
    run(tmp_path / "whole", reference)
    shutil.copytree(stopped, tmp_path / "parts")
    without_identity(tmp_path / "parts")
    run(tmp_path / "parts", model, on_event=events.append)
    assert "does not say of which run it is: an older version wrote it" in events[0]["warnings"][0]
    assert_same_run(tmp_path / "parts", model, tmp_path / "whole", reference)
    assert len(read_metrics(tmp_path / "parts", config(tmp_path / "parts"))) == 3


def test_a_summary_of_an_older_version_is_read(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["identity"], summary["timing"]["sha256"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert run(tmp_path) == summary


SPECIAL: dict[str, Callable[[Path], None]] = {
    "FIFO": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "deep": lambda path: path.write_text("[" * 100_000 + "]" * 100_000) and None,
    "NaN": lambda path: path.write_text('{"epoch": NaN, "settled": NaN}\n') and None,
    "huge": lambda path: path.write_text('{"epoch": 1' + "0" * 9999 + "}\n") and None,
    "list": lambda path: path.write_text("[1]\n") and None,
    "not UTF-8": lambda path: path.write_bytes(b'{"\xff": 1}\n') and None,
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "metrics.jsonl", "summary.json"]
)
def test_special_and_damaged_records_are_named(
    stopped: Path, tmp_path: Path, name: str, kind: str
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    SPECIAL[kind](tmp_path / name)
    with pytest.raises(DataError, match=name) as caught:
        run(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["LATEST", "manifest.json", "tensors.safetensors"])
def test_special_files_of_a_checkpoint_fall_back_to_the_one_before(
    stopped: Path, tmp_path: Path, name: str, kind: str
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    path = folder / name if name == "LATEST" else max(folder.glob("step-*")) / name
    path.unlink()
    SPECIAL[kind](path)
    events: list[dict[str, Any]] = []
    assert run(tmp_path, on_event=events.append)["epochs"] == 3
    assert events[0]["step"] == (8 if name == "LATEST" else 4) and name in events[0]["warnings"][0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top1", 2),
        ("top1", "0.5"),
        ("n", 1.5),
        ("n", 10**29),
        ("loss", None),
        ("epochs", True),
        ("steps", -1),
        ("timing", []),
        ("best", 3),
    ],
)
def test_a_wrong_field_of_a_summary_is_named(
    finished: Path, tmp_path: Path, field: str, value: object
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps({**summary, field: value}))
    with pytest.raises(DataError, match=rf"summary\.json: {field} must be "):
        run(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 10**29),
        ("threads", "2"),
        ("threads", 0),
        ("precision", "int8"),
        ("channels_last", 1),
        ("device", 3),
        ("more", 1),
    ],
)
def test_a_wrong_setting_in_the_configuration_is_named(
    stopped: Path, tmp_path: Path, field: str, value: object
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    content = config(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({**content, "settled": {**content["settled"], field: value}})
    )
    with pytest.raises(DataError, match=rf"config\.json: settled.*{field}"):
        run(tmp_path)


def test_a_lock_that_was_removed_stops_the_run_before_its_next_write(tmp_path: Path) -> None:
    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 2:
            (tmp_path / ".lock").unlink()
            before.update(
                {
                    path: path.read_bytes()
                    for path in tmp_path.rglob("*")
                    if path.name in ("metrics.jsonl", "config.json")
                }
            )

    before: dict[Path, bytes] = {}
    with pytest.raises(
        UserError,
        match=r"its lock file \.lock was removed or replaced, so another process may write here",
    ):
        run(tmp_path, on_event=on_event)
    assert before and {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "summary.json").exists()


def test_a_lock_that_the_file_system_does_not_have_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(
        UserError,
        match=r"\.lock: the file system does not support locks \(Function not implemented\)",
    ) as caught:
        run(tmp_path)
    assert "in use" not in str(caught.value)


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "checkpoints"])
def test_links_are_not_followed_when_a_run_is_written(tmp_path: Path, name: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "run"
    folder.mkdir()
    with open_run(folder, {"a": 1}):
        pass
    (folder / name).unlink(missing_ok=True)
    outside.mkdir() if name == "checkpoints" else outside.write_text("mine")
    (folder / name).symlink_to(outside)
    (folder / "config.json").unlink()
    shutil.move(folder / name, tmp_path / "kept")  # a folder with other files would be refused
    if name != ".lock":
        with pytest.raises(StoppedError):
            run(folder, on_event=interrupt("step", 1))
        if name == "checkpoints":
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    shutil.move(tmp_path / "kept", folder / name)
    if name == "metrics.jsonl":
        run(folder)  # the link is replaced
        assert not (folder / name).is_symlink()
    else:
        with pytest.raises(UserError, match="is a link"):
            run(folder)
    assert outside.read_text() == "mine" if outside.is_file() else not list(outside.iterdir())


def test_what_a_killed_process_left_is_removed_and_links_in_it_are_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").touch()
    (tmp_path / ".writing-config.json-0123").write_text("half")
    (tmp_path / ".writing-folder").symlink_to(tmp_path / "kept")
    (tmp_path / "run").mkdir()
    for name in (".writing-config.json-0123", ".writing-folder"):
        shutil.move(tmp_path / name, tmp_path / "run" / name)
    with open_run(tmp_path / "run", {"a": 1}):
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", ".lock"}
    assert (tmp_path / "kept" / "a").exists()


def test_the_holder_s_name_cannot_control_a_terminal(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("\x1b]0;title\x07 you")
    in_use = pytest.raises(UserError, match=r"in use by \]0;title you$")
    with acquire(tmp_path / ".lock"), in_use:
        run(tmp_path)


def test_weights_of_another_run_are_told_apart(finished: Path, tmp_path: Path) -> None:
    tensors, meta = load_weights(finished / "weights.safetensors")
    assert meta["identity"] == read_summary(finished, config(finished))["identity"]  # pyrefly: ignore
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
