"""Writes pickles of protocols 3 to 5 as protocol 2, which torch reads without running code.

Nothing is built here: torch's unpickler still decides about each class and each call that a file
asks for.
"""

import io
import pickle
import pickletools
import struct
import zipfile
from pickle import UnpicklingError
from typing import IO, Any

NEWEST = b"\x80\x02"  # how a pickle of the newest protocol that torch reads begins
# of a file that is no archive: magic number, version, machine, content, names of the storages
LEGACY_PICKLES = 5
# A string is written again wherever it is referred to, which must not fill the memory.
MOST_BYTES = 256 * 2**20
STRINGS = {"BINUNICODE", "SHORT_BINUNICODE"}
REFERENCES = {"BINGET", "LONG_BINGET"}
NUMBERED = {"BINPUT", "LONG_BINPUT"}
# Only tensors are of interest, so sets become lists, and bytes become empty tuples.
REPLACED = {
    "PROTO": b"",
    "FRAME": b"",
    "EMPTY_SET": pickle.EMPTY_LIST,
    "ADDITEMS": pickle.APPENDS,
    "FROZENSET": pickle.TUPLE,
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), pickle.EMPTY_TUPLE),
}


def readable(file: IO[bytes]) -> IO[bytes]:
    """Returns a file of torch as it is, or with its pickles in protocol 2."""
    file.seek(0)
    if file.read(2) == b"PK":
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            newer = {name for name in pickles if archive.read(name)[:2] > NEWEST}
            return rebuilt(archive, newer) if newer else file
    file.seek(0)
    if file.read(2) <= NEWEST:
        return file
    file.seek(0)
    pickles = [as_protocol_2(file) for _ in range(LEGACY_PICKLES)]
    return io.BytesIO(b"".join([*pickles, file.read()]))


def rebuilt(archive: zipfile.ZipFile, newer: set[str]) -> IO[bytes]:
    """Returns a copy of an archive in which some pickles have protocol 2."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as target:
        for name in archive.namelist():
            content = archive.read(name)
            target.writestr(name, as_protocol_2(io.BytesIO(content)) if name in newer else content)
    copy.seek(0)
    return copy


def as_protocol_2(file: IO[bytes]) -> bytes:
    """Returns the pickle that begins here in protocol 2, and leaves the file at its end.

    Protocol 4 names a class by two strings on the stack. Strings are therefore held back until
    another operation follows.

    Raises:
        UnpicklingError: If it has an operation for which protocol 2 has none.
    """
    written, room = bytearray(NEWEST), MOST_BYTES
    held: list[str] = []  # the strings on top of the stack
    memo: dict[int, str | None] = {}  # a string, or None for something else
    for operation, value, position in pickletools.genops(file):
        argument: Any = value  # of the type that the operation has
        name, start, end = operation.name, position or 0, file.tell()
        if name in STRINGS:
            held.append(argument)
            room -= len(argument)
        elif name in REFERENCES and isinstance(string := memo.get(argument), str):
            held.append(string)
            room -= len(string)
        elif name in NUMBERED or name == "MEMOIZE":
            number = len(memo) if name == "MEMOIZE" else argument
            memo[number] = held[-1] if held else None
            if not held:
                written += pickle.LONG_BINPUT + struct.pack("<I", number)
        elif name == "STACK_GLOBAL":
            if len(held) < 2 or "\n" in "".join(held[-2:]):
                raise UnpicklingError("it names a class by something else than two strings")
            module, attribute = held[-2:]
            written += (
                as_operations(held[:-2]) + pickle.GLOBAL + f"{module}\n{attribute}\n".encode()
            )
            held.clear()
        else:
            written += as_operations(held)
            held.clear()
            if operation.proto > 2 and name not in REPLACED:
                raise UnpicklingError(
                    f"its pickle has the operation {name}; save it with torch's own pickle"
                    " protocol, 2"
                )
            file.seek(start)
            written += REPLACED.get(name, file.read(end - start))
            file.seek(end)
        if room < 0:
            raise UnpicklingError(
                f"the strings of its pickle have more than {MOST_BYTES:,} characters"
            )
    return bytes(written)


def as_operations(strings: list[str]) -> bytes:
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    return b"".join(pickle.BINUNICODE + struct.pack("<I", len(text)) + text for text in encoded)
