"""Read a state dict from a file: safetensors, or another's ``.pth`` through torch's unpickler that builds tensors and containers alone."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cpsam.errors import DataError, UserError

PICKLED = (".pth", ".pt", ".bin", ".tar")
ENVELOPES = ("state_dict", "model", "model_state_dict")
"""Where training scripts put the weights, beside an optimizer and counters: timm's, torchvision's, and the tutorials of torch."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every key."""

DAMAGE = (SafetensorError, zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their keys, on the CPU; an envelope around them and prefixes before all keys are taken off.

    Args:
        path: ``.safetensors``, or one of `PICKLED`, which is read with ``weights_only=True``: a file that asks for code is refused.

    Raises:
        DataError: If the file is missing or damaged. torch passes over the checksums of a ``.pth``; here they are looked at.
        UserError: If it is of another kind, or holds anything but tensors by their names.
    """
    if path.suffix not in (".safetensors", *PICKLED):
        raise UserError(f"weights must be one of {', '.join(('.safetensors', *PICKLED))}; got {str(path)!r}")
    if not path.is_file():
        raise DataError(f"weights file not found: {path}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else read_pickled(path)
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        why = f"asks for {wanted[1]}" if wanted else "is no file of torch"
        raise UserError(f"weights file {path} {why}; nothing but tensors is read from it, because a pickle can run code") from error
    except DAMAGE as error:
        raise DataError(f"weights file cannot be read: {path}: {str(error).partition(chr(10))[0] or type(error).__name__}") from error
    return unwrapped(path, content)


def read_pickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if spoiled := archive.testzip():
                raise zipfile.BadZipFile(f"checksum of {spoiled} does not fit")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle's protocol: what it cannot read is an error anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in ENVELOPES if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping):
        raise UserError(f"weights file {path} must hold tensors by name; got {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(f"weights file {path} must hold tensors by name; got {type(value).__name__} at {key!r}")
    state = dict(content)
    for prefix in WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
