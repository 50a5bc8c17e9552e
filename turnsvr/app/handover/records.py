"""Messages of a hand-over in memory that outlives a process, each with a checksum.

A record is its size in 4 bytes, the number of its descriptors in 2, the CRC-32 of these and of the text in 4, and the
text, an object of JSON. A record that a killed process has written in part does not match its checksum.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from typing import Final

from turnsvr.app.handover.wire import MOST_DESCRIPTORS, no_constant
from turnsvr.turn.snapshot import Document, Unreadable, read_document

_HEAD: Final = struct.Struct("!IH")
_SUM: Final = struct.Struct("!I")
_BEFORE: Final = _HEAD.size + _SUM.size
_MOST_BYTES: Final = 1 << 30
"""Of all records."""


def pack(message: Document, descriptors: int) -> bytes:
    text = json.dumps(message, separators=(",", ":")).encode()
    head = _HEAD.pack(len(text), descriptors)
    return head + _SUM.pack(zlib.crc32(text, zlib.crc32(head))) + text


def unpack(data: bytes, *, cut_off: bool = False) -> list[tuple[Document, int]]:
    """All messages, each with the number of its descriptors. Raises Unreadable for what is not whole.

    cut_off: whether the last record may be incomplete; it is left out then.
    """
    found: list[tuple[Document, int]] = []
    at = 0
    while at < len(data):
        size, descriptors = _HEAD.unpack_from(data, at) if len(data) - at >= _BEFORE else (len(data), 0)
        text = data[at + _BEFORE : at + _BEFORE + size]
        if len(text) != size:
            if cut_off:
                return found
            raise Unreadable("a record that is cut off")
        [checksum] = _SUM.unpack_from(data, at + _HEAD.size)
        if descriptors > MOST_DESCRIPTORS or zlib.crc32(text, zlib.crc32(data[at : at + _HEAD.size])) != checksum:
            raise Unreadable("a record that is damaged")
        try:
            message = json.loads(text, parse_constant=no_constant)
        except (ValueError, RecursionError):
            raise Unreadable("a record that is no JSON") from None
        found.append((read_document(message, "record"), descriptors))
        at += _BEFORE + size
    return found


def read_all(descriptor: int) -> bytes:
    """A file from its beginning. Raises Unreadable for one that is too large, and OSError."""
    size = os.fstat(descriptor).st_size
    if size > _MOST_BYTES:
        raise Unreadable("more than any server has")
    parts = []
    at = 0
    while at < size:
        part = os.pread(descriptor, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Append to a file. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
