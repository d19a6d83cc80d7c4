"""Writes weights as one ``.safetensors`` file with its own SHA-256, and reads such files.

Any tool reads such a file. The hash is the first entry of the header's metadata. It covers the
whole file, with zeros in its own place.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from cpsam.errors import DataError
from cpsam.files import open_regular, parse_json, write_atomically
from cpsam.insert.old_names import with_current_names

META_KEY = "cpsam"
WEIGHTS_FORMAT = 2  # Weights of the first version had no number of their format, and no hash.
# Errors that reading a forged file can raise.
NOT_OURS = (KeyError, TypeError, AttributeError, ValueError, OverflowError, SafetensorError)
PREFIX = b'{"__metadata__":{"cpsam.sha256":"'
START = 8 + len(PREFIX)  # The first eight bytes are the length of the header.
ZEROS = b"0" * 64


@dataclass(frozen=True)
class Storable:
    """Tensors as safetensors needs them: contiguous copies on the CPU that share no memory.

    Args:
        stored: The tensors that are stored.
        shared: The name of each other tensor, with the name of the stored one that equals it.
    """

    stored: dict[str, Tensor]
    shared: dict[str, str]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors whose names begin with a prefix, without it."""
        everything = self.stored | {
            name: self.stored[original] for name, original in self.shared.items()
        }
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in everything.items()
            if name.startswith(prefix)
        }


def storable(tensors: Mapping[str, Tensor]) -> Storable:
    """Copies tensors as they are now, in any memory format and on any device."""
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
    """Writes weights with `meta` and the hash of the file in its header.

    Args:
        path: The file. An old one is replaced atomically.
        tensors: For example a ``state_dict()``. A tensor under two names is stored once.
        meta: Plain data (JSON types), for example the blocks in the model.
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
            tensors, meta, notes = parse_weights(file.read())
    except OSError as error:
        raise DataError(f"weights {path}: cannot be read ({error.strerror or error})") from error
    except NOT_OURS as error:
        raise DataError(f"weights {path}: not a whole .safetensors file ({error})") from error
    for note in notes:
        on_note(f"weights {path}: {note}")
    return tensors, meta


def parse_weights(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Returns the tensors, the plain data and the notes of the content of a .safetensors file.

    Raises:
        Exception: One of `NOT_OURS` if the content is damaged or forged.
    """
    sealed, tensors = is_sealed(data), safetensors.torch.load(data)
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if META_KEY not in (metadata := header.get("__metadata__", {})):
        return tensors, {}, []
    content = parse_json(metadata[META_KEY])
    meta, shared = content["meta"], content["shared"]
    if "format" in content and not sealed:
        raise ValueError("its hash is missing")
    if not isinstance(meta, dict):
        raise TypeError("meta is not an object")
    tensors |= {name: tensors[original] for name, original in shared.items()}
    tensors, notes = with_current_names(tensors, meta.get("attention", ()))
    return tensors, meta, notes


def seal_tensors(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Returns a safetensors file without metadata as one with metadata and its hash."""
    length = int.from_bytes(data[:8], "little")
    entries, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    header = {"__metadata__": {"cpsam.sha256": ZEROS.decode(), **metadata}, **entries}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The tensors begin at a multiple of eight bytes.
    content = len(text).to_bytes(8, "little") + text + tensors
    return content[:START] + hash_content(content) + content[START + 64 :]


def is_sealed(data: bytes) -> bool:
    """Returns whether a file carries its hash.

    Raises:
        ValueError: If it does, and the hash is wrong.
    """
    if data[8:START] != PREFIX:
        return False
    if data[START : START + 64] != hash_content(data):
        raise ValueError("its SHA-256 is not the one in its header")
    return True


def hash_content(content: bytes) -> bytes:
    """Returns the hash of a file, with zeros in its place."""
    view = memoryview(content)
    found = hashlib.sha256(view[:START])
    found.update(ZEROS)
    found.update(view[START + 64 :])
    return found.hexdigest().encode()
