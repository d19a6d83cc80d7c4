"""Reads what a file of weights holds, safetensors or torch, and builds nothing but tensors.

The content of a file decides how it is read, not its name.
"""

import io
import re
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch

from cpsam.errors import CpsamError, DataError, UserError
from cpsam.files import open_regular
from cpsam.models.protocols import readable
from cpsam.weights_file import parse_weights

HEAD_BYTES = 512
MOST_ATTEMPTS = 64  # at a file, one for each class that it names

# torch itself stops at os and sys. No trainer writes these. Python 2 says commands for subprocess,
# and protocol 2 still does.
ATTACK = re.compile(
    r"builtins\.(eval|exec|compile|getattr|open|__import__)|(subprocess|commands|runpy|importlib|pty|socket|shutil|ctypes|code)\..*"
)

FOREIGN = {
    b"version https://git-lfs": (
        "is a Git LFS pointer, not weights: fetch the file itself with git lfs pull"
    ),
    b"\x1f\x8b": "is a gzip archive: unpack it first",
    b"\x89HDF": "is an HDF5 file (of Keras, for instance), which is not read here",
    b"<": "is an HTML or XML page, not weights: download the file itself",
    b"{": (
        "is a JSON text, not weights; if it is the index of a sharded checkpoint, merge the shards"
        " into one file first"
    ),
}
"""How files begin that are often taken for weights, and what they are."""


@dataclass(frozen=True)
class FileContent:
    """What a file holds.

    Attributes:
        tree: Tensors by name, or containers around them.
        metadata: What :func:`cpsam.weights_file.save_weights` stored beside the tensors; empty for
            files of others.
        skipped: Classes and functions that the file names. None of them was imported or called.
        notes: One line if an older version wrote names that have changed.
    """

    tree: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_content(path: Path) -> FileContent:
    """Returns what a file of weights holds, on the CPU.

    Raises:
        DataError: If the file is missing, is not a regular file, is damaged, or is something else
            than weights.
        UserError: If it asks for a module of the system, as only an attack does.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            if head.startswith(b"PK"):
                check_archive(file)
                return load_torch(path, file)
            if head[8:9] == b"{":
                return load_safetensors(file)
            if head.startswith(b"\x80"):
                return load_torch(path, file)
    except FileNotFoundError as error:
        raise DataError(f"weights file not found: {path}") from error
    except CpsamError:
        raise
    # the libraries raise anything at damaged bytes, struct.error and AttributeError among it
    except Exception as error:
        raise DataError(f"weights file cannot be read: {path}: {first_line(error)}") from error
    raise DataError(f"weights file {path} {foreign(head)}")


def foreign(head: bytes) -> str:
    """Says what a file is that does not begin as weights do."""
    if not head:
        return "is empty"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it first"
    start = head.lstrip()
    if (
        what := next((what for begin, what in FOREIGN.items() if start.startswith(begin)), None)
    ) is not None:
        return what
    text = head[:40].decode("ascii", "replace")
    if text.replace("\n", "").replace("\r", "").isprintable():
        return f"is a text that begins with {text.partition(chr(10))[0]!r}, not weights"
    return "is neither a safetensors file nor one of torch"


def check_archive(file: IO[bytes]) -> None:
    """Refuses an archive that torch does not write.

    torch itself ignores checksums, sizes and repeated names.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        if not any(name.endswith("data.pkl") for name in names):
            raise zipfile.BadZipFile("a zip archive without data.pkl is not a file of torch")
        if any(name.endswith("/constants.pkl") for name in names):
            raise zipfile.BadZipFile(
                "it is a TorchScript archive: save the state_dict() of the model instead"
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise zipfile.BadZipFile("the archive is compressed, as torch never writes it")
        size = file.seek(0, io.SEEK_END)
        if len(names) < len(entries) or sum(entry.file_size for entry in entries) > size:
            raise zipfile.BadZipFile("the archive holds more than the file has room for")
        if spoiled := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {spoiled} does not fit")


class Skipped:
    """Stands for an object of a class that the file names.

    It accepts what the file gives it, and keeps nothing.
    """

    def __init__(self, *args: Any) -> None:
        pass

    def __new__(cls, *args: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class SkippedDict(Skipped):
    """Stands for an object that is filled like a dictionary; it keeps its items.

    Weights may be among them.
    """

    def __new__(cls, *args: Any) -> Any:
        return OrderedDict()


class SkippedList(Skipped):
    def __new__(cls, *args: Any) -> Any:
        return []


def load_torch(path: Path, file: IO[bytes]) -> FileContent:
    """Reads a file of torch with the unpickler that runs no code; stand-ins take the place of the
    classes that it names.

    Each name that the unpickler stops at gets a stand-in, and the file is read again.
    """
    file = readable(file)
    stand_ins: dict[str, type[Skipped]] = {}
    for _ in range(MOST_ATTEMPTS):
        file.seek(0)
        allowed: list[Any] = [
            (type(name, (kind,), {"__module__": "skipped"}), name)
            for name, kind in stand_ins.items()
        ]
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
                # about the protocol of the pickle: what cannot be read is an error anyway
                warnings.simplefilter("ignore")
                return FileContent(
                    torch.load(file, map_location="cpu", weights_only=True),
                    skipped=tuple(stand_ins),
                )
        except UnpicklingError as error:
            reason = str(error)
            if asked := re.search(r"Unsupported global: GLOBAL (\S+) was not", reason):
                name = asked[1] if "." in asked[1] else f"builtins.{asked[1]}"
                if ATTACK.fullmatch(name):
                    raise code_refused(path, name) from error
                stand_ins[name] = Skipped
            elif filled := re.search(
                r"Can only (SETITEM|append).* got <class 'skipped\.(\S+)'>", reason
            ):
                stand_ins[filled[2]] = SkippedDict if filled[1] == "SETITEM" else SkippedList
            else:
                raise refusal(path, reason) from error
    raise UserError(
        f"weights file {path} asks for more than {MOST_ATTEMPTS} classes; save the state dict alone"
    )


def refusal(path: Path, reason: str) -> CpsamError:
    if wanted := re.search(r"unsupported GLOBAL (\S+)", reason):
        return code_refused(path, wanted[1])
    if "Unsupported operand" in reason:
        return DataError(
            f"weights file cannot be read: {path}: save it with torch's own pickle protocol, 2; it"
            " has another, or is damaged"
        )
    if "persistent_load of storage" in reason:
        return DataError(
            f"weights file {path} holds a whole module, not its tensors: save its state_dict()"
            " instead"
        )
    cause = reason.partition("WeightsUnpickler error:")[2].strip() or reason
    return DataError(f"weights file cannot be read: {path}: {cause.partition(chr(10))[0]}")


def code_refused(path: Path, name: str) -> UserError:
    return UserError(
        f"weights file {path} asks for {name}; nothing but tensors is read from it, because a"
        " pickle can run code"
    )


def load_safetensors(file: IO[bytes]) -> FileContent:
    tensors, meta, notes = parse_weights(file.read())
    return FileContent(tensors, meta, notes=tuple(notes))


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
