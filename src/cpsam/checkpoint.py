"""Saves checkpoints that stay whole if the process or the machine stops at any moment.

A checkpoint is a folder ``step-00000391`` of `tensors.safetensors` and `manifest.json`, without
pickle. It is written under another name, flushed to the disk, renamed, and then named by `LATEST`.
The hash of every file is checked when it is read. If one is damaged, the checkpoint before is used.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
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
from cpsam.weights_file import NOT_OURS, Storable

LATEST, MANIFEST, TENSORS = "LATEST", "manifest.json", "tensors.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Args:
        step: The number of optimizer steps made.
        tensors: By name, on the CPU, contiguous.
        meta: Plain data that was saved beside them.
        warnings: One line per newer checkpoint that is damaged; empty if the newest was good.
    """

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class Damaged(Exception):
    """A file is not what was written."""


def save_checkpoint(
    folder: Path, step: int, tensors: Storable, meta: Mapping[str, Any], keep: int = 2
) -> Path:
    """Writes a checkpoint. When this returns, it survives a power cut.

    It may run in another thread, because it reads copies and not the tensors of the training.

    Args:
        folder: The folder of all checkpoints of a run; created if it is missing.
        step: The number of optimizer steps made. Checkpoints of later steps, which a resumed run
            left behind, are removed.
        tensors: Copies from :func:`cpsam.weights_file.storable`. A tensor under two names is stored
            once.
        meta: Plain data (JSON types), for example optimizer scalars and the blocks in the model.
        keep: The number of checkpoints to keep, at least 1.

    Returns:
        The folder of this checkpoint.

    Raises:
        OSError: If it cannot be written, for example because the disk is full. Earlier checkpoints
            stay as they were.
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
        identity: The identity of the run, which `meta` has too. A checkpoint without it is of an
            older version, and is taken with a warning. None takes any checkpoint.

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
    """Returns the steps of all checkpoints, whole or damaged, oldest first.

    Files, links and folders of other names do not count.

    Raises:
        DataError: If the folder cannot be read, so it may hold checkpoints.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"checkpoints {folder}: cannot be read ({error.strerror})") from error
    names = [entry.name for entry in entries if entry.name[5:].isdecimal()]
    return sorted(int(name[5:]) for name in names if name == checkpoint_name(int(name[5:])))


def seal(data: Mapping[str, Any]) -> bytes:
    """Returns JSON with its own hash. :func:`unseal` takes no other form, so no changed bit
    passes.
    """
    body = json.dumps(data, sort_keys=True)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def unseal(raw: bytes) -> dict[str, Any]:
    body, _, digest = raw.partition(b"\n")
    if digest != f"{hashlib.sha256(body).hexdigest()}\n".encode():
        raise Damaged("its hash does not fit")
    return parse_json(body)
