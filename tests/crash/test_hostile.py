"""Files that would run code if they were read carelessly: each is refused in words, and nothing of
it runs.
"""

import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import save_checkpoint
from support.tiny import FULL, tiny_dataset, tiny_residual
from torch import nn

from cpsam.checkpoint import load_checkpoint, seal
from cpsam.errors import CpsamError, DataError, StoppedError, UserError
from cpsam.insert import insert_from_config
from cpsam.models import create_model, load_pretrained
from cpsam.run.evaluate_run import evaluate_run
from cpsam.train import Recipe
from cpsam.train.train import train
from cpsam.weights_file import load_weights, save_weights


class Attack:
    """A pickle of it calls something when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def touch(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


PICKLES: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda marker: pickle.dumps(Attack(__import__("os").system, f"touch {marker}")),
    "eval": lambda marker: pickle.dumps(Attack(eval, touch(marker))),
    "exec, protocol 0": lambda marker: pickle.dumps(Attack(exec, touch(marker)), protocol=0),
    "subprocess": lambda marker: pickle.dumps(
        Attack(__import__("subprocess").call, ["touch", str(marker)])
    ),
    "torch.save, zip": lambda marker: saved({"state_dict": Attack(eval, touch(marker))}),
    "torch.save, legacy": lambda marker: saved(
        {"weight": Attack(eval, touch(marker))}, _use_new_zipfile_serialization=False
    ),
    "a module with a hook": lambda marker: saved([nn.Linear(2, 3), Attack(eval, touch(marker))]),
    "behind a good header": lambda marker: (
        b"\x02\0\0\0\0\0\0\0{}" + pickle.dumps(Attack(eval, touch(marker)))
    ),
}


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def test_the_pickles_are_what_they_seem(tmp_path: Path) -> None:
    for index, (name, make) in enumerate(PICKLES.items()):
        marker, data = tmp_path / str(index), make(tmp_path / str(index))
        if "header" in name:
            pickle.loads(data[10:])  # noqa: S301
        elif data[:2] == b"PK" or "torch" in name or "module" in name:
            torch.load(io.BytesIO(data), weights_only=False)
        else:
            pickle.loads(data)  # noqa: S301
        assert marker.exists(), name


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_weights_are_no_pickles(tmp_path: Path, name: str, suffix: str) -> None:
    path, marker = tmp_path / f"weights{suffix}", tmp_path / "ran"
    path.write_bytes(PICKLES[name](marker))
    for read in (
        lambda: load_pretrained(tiny_residual(), path, 7),
        lambda: create_model("resnet20", 10, weights=path),
        lambda: load_weights(path),
    ):
        with pytest.raises(CpsamError):
            read()
    assert not marker.exists()


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("file", ["LATEST", "manifest.json", "tensors.safetensors"])
def test_checkpoints_are_no_pickles(tmp_path: Path, name: str, file: str) -> None:
    folder, marker = tmp_path / "checkpoints", tmp_path / "ran"
    step = save_checkpoint(folder, 4, {"a": torch.ones(3)}, {})
    (folder / file if file == "LATEST" else step / file).write_bytes(PICKLES[name](marker))
    if file == "LATEST":
        loaded = load_checkpoint(folder)
        assert loaded is not None and "LATEST is damaged" in loaded.warnings[0]
    else:
        with pytest.raises(DataError, match="no checkpoint is whole"):
            load_checkpoint(folder)
    assert not marker.exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        proceed(folder, on_event=on_event)
    return folder


def proceed(folder: Path, **options: Any) -> None:
    recipe = Recipe(**{**FULL, "epochs": 2})
    train(
        tiny_residual(),
        tiny_dataset(),
        recipe,
        seed=4,
        folder=folder,
        config={"model": "tiny"},
        device="cpu",
        **options,
    )


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize(
    "file", ["config.json", "environment.json", "metrics.jsonl", "summary.json"]
)
def test_the_files_of_a_run_are_no_pickles(
    tmp_path: Path, stopped: Path, name: str, file: str
) -> None:
    marker = tmp_path / "ran"
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(PICKLES[name](marker))
    with pytest.raises(DataError, match=file):
        proceed(tmp_path / "run")
    assert not marker.exists()


def sealed_meta(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda manifest: {**manifest, "meta": {**manifest["meta"], **changes}}


FORGED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a position that is code": sealed_meta(position="__import__('os').system('touch ran')"),
    "a position of another kind": sealed_meta(position={"__class__": "os.system", "step": 1}),
    "optimizer numbers that are none": sealed_meta(
        optimizer={"0/../../x": {"__reduce__": "os.system"}}
    ),
    "no meta at all": lambda manifest: {**manifest, "meta": None},
    "a tensor shared with nothing": lambda manifest: {
        **manifest,
        "tensors": {**manifest["tensors"], "shared": {"model/x": "../../etc/passwd"}},
    },
    "a step outside the run": sealed_meta(
        position={"step": 10**9, "epochs": 10**8, "loss_sum": 0.0, "seconds": 0.0}
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_checkpoint_is_refused(
    tmp_path: Path, stopped: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash fits, because whoever wrote it took care."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped, tmp_path / "run")
    manifest = max((tmp_path / "run" / "checkpoints").glob("step-*")) / "manifest.json"
    forged = FORGED[name](json.loads(manifest.read_bytes().splitlines()[0]))
    manifest.write_bytes(seal(forged))
    with pytest.raises(DataError):
        proceed(tmp_path / "run")
    assert not (tmp_path / "ran").exists()


CONFIGS: dict[str, Any] = {
    "a function for a block": [
        {"at": "layer3.1", "attention": "os.system", "arguments": {"in_channels": "touch ran"}}
    ],
    "a dunder for a block": [
        {"at": "layer3.1", "attention": "__import__", "arguments": {"name": "os"}}
    ],
    "a place that is code": [
        {"at": "layer3.__class__.__init__", "attention": "cpsam", "arguments": {}}
    ],
    "an argument that is none": [
        {
            "at": "layer3.1",
            "attention": "cpsam",
            "arguments": {"in_channels": 64, "__class__": "os"},
        }
    ],
    "no list": {"attention": "cpsam"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_inserted_is_looked_up_and_never_evaluated(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_weights(
        tmp_path / "w.safetensors", tiny_residual().state_dict(), {"attention": CONFIGS[name]}
    )
    with pytest.raises((UserError, DataError, TypeError)):
        _, meta = load_weights(tmp_path / "w.safetensors")
        insert_from_config(create_model("resnet20", 10), meta["attention"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "model",
    [
        "os.system('touch ran')",
        "../../bin/sh",
        "timm/hf-hub:someone/model",
        "torchvision/__import__",
    ],
)
def test_the_model_of_a_run_is_a_name_of_ours(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from cpsam.data import load_dataset

    digits = load_dataset("digits")
    data = {
        "name": "digits",
        "image_size": None,
        "validation": 0.0,
        "fingerprint": digits.fingerprint,
        "mean": [0.5],
        "std": [0.5],
    }
    setting = {"device": "cpu", "precision": "float32", "channels_last": True, "threads": 1}
    (tmp_path / "config.json").write_text(
        json.dumps({"data": data, "model": model, "settled": setting})
    )
    save_weights(tmp_path / "weights.safetensors", {"a": torch.ones(2)}, {"attention": []})
    with pytest.raises(UserError, match=r"unknown|hub|has no name"):
        evaluate_run(tmp_path, None, "test", lambda event: None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9])
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path, length: int) -> None:
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(DataError, match=r"not a whole \.safetensors file"):
        load_weights(tmp_path / "w.safetensors")
