"""Checkpoints: safetensors and a manifest with hashes, without pickle, whole after a crash at any
moment.

A checkpoint is a folder ``step-00000391`` of `tensors.safetensors` and `manifest.json`. It is
written under another name, flushed to the disk, renamed, and only then named by `LATEST`. Every
file is checked when it is read; where one is damaged the checkpoint before is used.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import warn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from cpsam.errors import DataError, UserError
from cpsam.files import (
    RECORD_BYTES,
    open_regular,
    parse_json,
    read_file,
    remove,
    remove_leftovers,
    replacing,
    sync_folder,
    write_atomically,
    write_durably,
)
from cpsam.insert.old_names import with_current_names
from cpsam.sealed import is_sealed, seal_tensors

LATEST, MANIFEST, TENSORS = "LATEST", "manifest.json", "tensors.safetensors"
META_KEY = "cpsam"
FORMAT = 1
WEIGHTS_FORMAT = 2  # Weights of the first version had no number of their format, and no hash.
# what reading a forged file can raise
NOT_OURS = (KeyError, TypeError, AttributeError, ValueError, OverflowError, SafetensorError)


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


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write a checkpoint; when this returns, it survives a power cut.

    Args:
        folder: Folder of all checkpoints of a run; made if missing.
        step: Optimizer steps made. Checkpoints of later steps, which a resumed run has left behind,
            are removed.
        tensors: Anything, in any memory format, on any device. A tensor under two names is stored
            once.
        meta: Plain data (JSON types), such as optimizer scalars and what is inserted in the model.
        keep: Checkpoints to keep, at least 1.

    Returns:
        The folder of this checkpoint.

    Raises:
        OSError: If it cannot be written, the disk being full for instance; earlier checkpoints are
            as they were.
    """
    return write_checkpoint(folder, step, storable(tensors), meta, keep)


def write_checkpoint(
    folder: Path, step: int, tensors: "Storable", meta: Mapping[str, Any], keep: int
) -> Path:
    """:func:`save_checkpoint` without its first half, :func:`storable`: what is left may be done in
    another thread.
    """
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a link, and checkpoints are written to a folder of the run itself; remove"
            " the link"
        )
    if not folder.exists():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    data = safetensors.torch.save(tensors.stored)
    manifest = {
        "format": FORMAT,
        "step": step,
        "tensors": {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "shared": tensors.shared,
        },
        "meta": dict(meta),
    }
    path = folder / checkpoint_name(step)
    remove_leftovers(folder)
    # Something has this name if a checkpoint is damaged, or if a resumed run repeats the step.
    with replacing(path) as temporary:
        temporary.mkdir()
        write_durably(temporary / TENSORS, data)
        write_durably(temporary / MANIFEST, seal(manifest))
        sync_folder(temporary)
    if (folder / LATEST).is_dir():
        remove(folder / LATEST)
    write_atomically(folder / LATEST, seal({"step": step}))
    steps = checkpoint_steps(folder)
    kept = [other for other in steps if other <= step][-keep:]
    for other in set(steps) - set(kept):
        remove(folder / checkpoint_name(other))
    return path


def load_checkpoint(folder: Path, identity: str | None = None) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole, or None if there is none at all.

    Args:
        folder: Folder of all checkpoints of a run.
        identity: The run that they must be of: what `meta` has under "identity". One without it,
            which an older version wrote, is taken with a warning. None takes any.

    Raises:
        DataError: If there are checkpoints and none is whole, or the folder cannot be read.
    """
    steps, warnings = checkpoint_steps(folder), []
    try:
        latest = unseal(read_file(folder / LATEST, RECORD_BYTES))["step"]
        if latest not in steps:
            warnings.append(f"{folder / LATEST} names step {latest}, which is not there")
        steps.sort(key=lambda step: (step == latest, step))
    except FileNotFoundError:
        if steps:
            warnings.append(f"{folder / LATEST} is missing")
    except (Damaged, DataError) as damage:
        warnings.append(f"{folder / LATEST} is damaged: {damage}")
    except OSError as error:
        warnings.append(f"{folder / LATEST} cannot be read ({error.strerror})")
    except NOT_OURS as error:
        warnings.append(f"{folder / LATEST} is damaged: {error}")
    for step in reversed(steps):
        path = folder / checkpoint_name(step)
        try:
            tensors, meta = read_checkpoint(path)
            tensors, notes = with_current_names(tensors, meta.get("attention", ()))
            theirs = meta.get("identity")
        except Damaged as damage:
            warnings.append(f"checkpoint {path} is damaged: {damage}")
        except DataError as error:
            warnings.append(f"checkpoint {path} is damaged: {error}")
        except FileNotFoundError as missing:
            warnings.append(
                f"checkpoint {path} is damaged: {Path(missing.filename).name} is missing"
            )
        except OSError as error:
            warnings.append(f"checkpoint {path} cannot be read ({error.strerror})")
        except NOT_OURS as error:
            warnings.append(f"checkpoint {path} is not what this version writes: {error!r}")
        else:
            if identity is not None and theirs not in (identity, None):
                warnings.append(f"checkpoint {path} is of another run")
                continue
            if identity is not None and theirs is None:
                warnings.append(
                    f"checkpoint {path} does not say of which run it is: an older version wrote it"
                )
            return Checkpoint(step, tensors, meta, warnings + notes)
    if warnings:
        raise DataError(
            f"no checkpoint is whole ({'; '.join(warnings)}); remove {folder} to train from the"
            " start"
        )
    return None


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        manifest = unseal(read_file(path / MANIFEST, RECORD_BYTES))
    except Damaged as damage:
        raise Damaged(f"{MANIFEST}: {damage}") from damage
    if manifest["format"] != FORMAT:
        raise Damaged(
            f"{MANIFEST} has format {manifest['format']}, and this version reads {FORMAT}"
        )
    entry = manifest["tensors"]
    with open_regular(path / TENSORS) as file:
        if (size := os.fstat(file.fileno()).st_size) != entry["bytes"]:
            raise Damaged(f"{TENSORS} has {size} bytes, not {entry['bytes']}")
        data = file.read()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Damaged(f"{TENSORS}: its SHA-256 is not the one in {MANIFEST}")
    tensors = safetensors.torch.load(data)
    return (
        tensors | {name: tensors[original] for name, original in entry["shared"].items()},
        manifest["meta"],
    )


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of all checkpoints, whole or not, oldest first. Files, links and folders of
    other names are none.

    Raises:
        DataError: If the folder cannot be read: it may hold checkpoints.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"checkpoints {folder}: cannot be read ({error.strerror})") from error
    names = [entry.name for entry in entries if entry.name[5:].isdecimal()]
    return sorted(int(name[5:]) for name in names if name == checkpoint_name(int(name[5:])))


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
        everything = self.stored | {
            name: self.stored[original] for name, original in self.shared.items()
        }
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in everything.items()
            if name.startswith(prefix)
        }


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
    """Writes weights as one .safetensors file that any tool can read, with `meta` and the hash of
    the file in its header.

    Args:
        path: File to write; replaced in one go if it is there.
        tensors: Such as a ``state_dict()``. A tensor under two names is stored once.
        meta: Plain data (JSON types), such as what is inserted in the model.
    """
    copies = storable(tensors)
    header = {
        META_KEY: json.dumps(
            {"format": WEIGHTS_FORMAT, "meta": dict(meta), "shared": copies.shared}, sort_keys=True
        )
    }
    write_atomically(path, seal_tensors(safetensors.torch.save(copies.stored), header))


def load_weights(
    path: Path, on_note: Callable[[str], None] = warn
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a .safetensors file of ours or of anyone.

    Args:
        path: The file.
        on_note: Receives one line if an older version wrote names that have changed.

    Returns:
        Tensors by name, and the plain data that :func:`save_weights` was given; empty for a file
        that it did not write.

    Raises:
        DataError: If the file is missing or is not a whole safetensors file.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
        sealed, tensors = is_sealed(data), safetensors.torch.load(data)
        metadata = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")]).get(
            "__metadata__", {}
        )
        if META_KEY not in metadata:
            return tensors, {}
        content = parse_json(metadata[META_KEY])
        meta, shared = content["meta"], content["shared"]
        if "format" in content and not sealed:
            raise ValueError("its hash is missing")
        if not isinstance(meta, dict):
            raise TypeError("meta is not an object")
        tensors |= {name: tensors[original] for name, original in shared.items()}
        tensors, notes = with_current_names(tensors, meta.get("attention", ()))
    except OSError as error:
        raise DataError(f"weights {path}: cannot be read ({error.strerror or error})") from error
    except NOT_OURS as error:
        raise DataError(f"weights {path}: not a whole .safetensors file ({error})") from error
    for note in notes:
        on_note(f"weights {path}: {note}")
    return tensors, meta


def seal(data: Mapping[str, Any]) -> bytes:
    """Returns JSON with its own hash. The form is the only one that :func:`unseal` takes, so that
    no changed bit passes.
    """
    body = json.dumps(data, sort_keys=True)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def unseal(raw: bytes) -> dict[str, Any]:
    body, _, digest = raw.partition(b"\n")
    if digest != f"{hashlib.sha256(body).hexdigest()}\n".encode():
        raise Damaged("its hash does not fit")
    return parse_json(body)
