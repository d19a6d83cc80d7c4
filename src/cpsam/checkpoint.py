"""Checkpoints: safetensors and a manifest with hashes, without pickle, whole after a crash at any moment.

A checkpoint is a folder ``step-00000391`` of `tensors.safetensors` and `manifest.json`. It is written under another name, flushed to the
disk, renamed, and only then named by `LATEST`. Every file is checked when it is read; where one is damaged the checkpoint before is used.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from cpsam.errors import DataError

LATEST, MANIFEST, TENSORS = "LATEST", "manifest.json", "tensors.safetensors"
META_KEY = "cpsam"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What was saved.

    Args:
        step: Optimizer steps made.
        tensors: By name, on the CPU, contiguous.
        meta: Plain data that was saved beside them.
        warnings: What was wrong with newer checkpoints, a line each; empty if the newest was good.
    """

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class Damaged(Exception):
    """A file is not what was written."""


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint; when this returns, it survives a power cut.

    Args:
        folder: Folder of all checkpoints of a run; made if missing.
        step: Optimizer steps made. Checkpoints of later steps, which a resumed run has left behind, are removed.
        tensors: Anything, in any memory format, on any device. A tensor under two names is stored once.
        meta: Plain data (JSON types), such as optimizer scalars and what is inserted in the model.
        keep: Checkpoints to keep, at least 1.

    Returns:
        The folder of this checkpoint.

    Raises:
        OSError: If it cannot be written, the disk being full for instance; earlier checkpoints are as they were.
    """
    return write_checkpoint(folder, step, storable(tensors), meta, keep)


def write_checkpoint(folder: Path, step: int, tensors: "Storable", meta: Mapping[str, Any], keep: int) -> Path:
    """:func:`save_checkpoint` without its first half, :func:`storable`: what is left may be done in another thread."""
    if not folder.exists():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    data = safetensors.torch.save(tensors.stored)
    manifest = {
        "format": FORMAT,
        "step": step,
        "tensors": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "shared": tensors.shared},
        "meta": dict(meta),
    }
    path = folder / checkpoint_name(step)
    temporary = folder / f".writing-{path.name}"
    for leftover in folder.glob(".writing-step-*"):
        shutil.rmtree(leftover)
    temporary.mkdir()
    try:
        write_durably(temporary / TENSORS, data)
        write_durably(temporary / MANIFEST, seal(manifest))
        sync_folder(temporary)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():  # the same step again: it was damaged, or a resumed run repeats it
        shutil.rmtree(path)
    temporary.rename(path)
    sync_folder(folder)
    write_atomically(folder / LATEST, seal({"step": step}))
    steps = checkpoint_steps(folder)
    kept = [other for other in steps if other <= step][-keep:]
    for other in set(steps) - set(kept):
        shutil.rmtree(folder / checkpoint_name(other))
    return path


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None if there is none at all.

    Raises:
        DataError: If there are checkpoints and none is whole.
    """
    steps, warnings = checkpoint_steps(folder), []
    try:
        latest = unseal((folder / LATEST).read_bytes())["step"]
        if latest not in steps:
            warnings.append(f"{folder / LATEST} names step {latest}, which is not there")
        steps.sort(key=lambda step: (step == latest, step))
    except FileNotFoundError:
        if steps:
            warnings.append(f"{folder / LATEST} is missing")
    except Damaged as damage:
        warnings.append(f"{folder / LATEST} is damaged: {damage}")
    for step in reversed(steps):
        path = folder / checkpoint_name(step)
        try:
            tensors, meta = read_checkpoint(path)
        except Damaged as damage:
            warnings.append(f"checkpoint {path} is damaged: {damage}")
        except (KeyError, TypeError, AttributeError, SafetensorError) as error:
            warnings.append(f"checkpoint {path} is not what this version writes: {error!r}")
        except FileNotFoundError as missing:
            warnings.append(f"checkpoint {path} is damaged: {Path(missing.filename).name} is missing")
        else:
            return Checkpoint(step, tensors, meta, warnings)
    if warnings:
        raise DataError(f"no checkpoint is whole ({'; '.join(warnings)}); remove {folder} to train from the start")
    return None


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        manifest = unseal((path / MANIFEST).read_bytes())
    except Damaged as damage:
        raise Damaged(f"{MANIFEST}: {damage}") from damage
    if manifest["format"] != FORMAT:
        raise Damaged(f"{MANIFEST} has format {manifest['format']}, and this version reads {FORMAT}")
    data, entry = (path / TENSORS).read_bytes(), manifest["tensors"]
    if len(data) != entry["bytes"]:
        raise Damaged(f"{TENSORS} has {len(data)} bytes, not {entry['bytes']}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Damaged(f"{TENSORS}: its SHA-256 is not the one in {MANIFEST}")
    tensors = safetensors.torch.load(data)
    return tensors | {name: tensors[original] for name, original in entry["shared"].items()}, manifest["meta"]


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Of all checkpoints, whole or not, oldest first."""
    return sorted(int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdecimal())


@dataclass(frozen=True)
class Storable:
    """Tensors as safetensors wants them: contiguous copies on the CPU that share no memory.

    Args:
        stored: Those that are stored.
        shared: Names of the others, and under which of the stored ones each is found.
    """

    stored: dict[str, Tensor]
    shared: dict[str, str]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with a prefix, without it."""
        everything = self.stored | {name: self.stored[original] for name, original in self.shared.items()}
        return {name.removeprefix(prefix): tensor for name, tensor in everything.items() if name.startswith(prefix)}


def storable(tensors: Mapping[str, Tensor]) -> Storable:
    """Copy tensors as they are now, in any memory format and on any device."""
    stored: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        view = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and view in names:
            shared[name] = names[view]
        else:
            names[view] = name
            stored[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return Storable(stored, shared)


def save_weights(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write weights as one .safetensors file that any tool can read, with `meta` in its header.

    Args:
        path: File to write; replaced in one go if it is there.
        tensors: Such as a ``state_dict()``. A tensor under two names is stored once.
        meta: Plain data (JSON types), such as what is inserted in the model.
    """
    copies = storable(tensors)
    header = {META_KEY: json.dumps({"meta": dict(meta), "shared": copies.shared}, sort_keys=True)}
    write_atomically(path, safetensors.torch.save(copies.stored, metadata=header))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a .safetensors file of ours or of anyone.

    Returns:
        Tensors by name, and the plain data that :func:`save_weights` was given; empty for a file that it did not write.

    Raises:
        DataError: If the file is missing or is not a whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            header = json.loads((file.metadata() or {}).get(META_KEY, '{"meta": {}, "shared": {}}'))
    except OSError as error:
        raise DataError(f"weights {path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError) as error:
        raise DataError(f"weights {path}: not a whole .safetensors file ({error})") from error
    return tensors | {name: tensors[original] for name, original in header["shared"].items()}, header["meta"]


def seal(data: Mapping[str, Any]) -> bytes:
    """JSON with its own hash. The form is the only one that :func:`unseal` takes, so that no changed bit passes."""
    body = json.dumps(data, sort_keys=True)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def unseal(raw: bytes) -> dict[str, Any]:
    body, _, digest = raw.partition(b"\n")
    if digest != f"{hashlib.sha256(body).hexdigest()}\n".encode():
        raise Damaged("its hash does not fit")
    return json.loads(body)


def write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that, after a crash, either the old content or the new is there."""
    temporary = path.with_name(f".writing-{path.name}")
    write_durably(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
