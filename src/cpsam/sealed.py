"""Writes ``.safetensors`` files that carry their own SHA-256, and checks it. Any tool reads such a
file.

The hash is the first entry of the header's metadata. It covers the whole file, with zeros in its
own place.
"""

import hashlib
import json
from collections.abc import Mapping

PREFIX = b'{"__metadata__":{"cpsam.sha256":"'
START = 8 + len(PREFIX)  # The first eight bytes are the length of the header.
ZEROS = b"0" * 64


def seal_tensors(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Returns a safetensors file without metadata as one with metadata and its hash."""
    length = int.from_bytes(data[:8], "little")
    entries, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    header = {"__metadata__": {"cpsam.sha256": ZEROS.decode(), **metadata}, **entries}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The tensors begin at a multiple of eight bytes.
    content = len(text).to_bytes(8, "little") + text + tensors
    return content[:START] + digest(content) + content[START + 64 :]


def is_sealed(data: bytes) -> bool:
    """Returns whether a file carries its hash.

    Raises:
        ValueError: If it does, and the hash is wrong.
    """
    if data[8:START] != PREFIX:
        return False
    if data[START : START + 64] != digest(data):
        raise ValueError("its SHA-256 is not the one in its header")
    return True


def digest(content: bytes) -> bytes:
    view = memoryview(content)
    found = hashlib.sha256(view[:START])
    found.update(ZEROS)
    found.update(view[START + 64 :])
    return found.hexdigest().encode()
