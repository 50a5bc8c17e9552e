"""What a TLS client asks for before anything is secret: the server's name and the protocols (RFC 8446 section 4.1.2).

Nothing else of a ClientHello is looked at. What cannot be read asks for nothing, and OpenSSL says what is wrong there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_HELLO = 16_384
"""Bytes of records that are looked at for a whole ClientHello; a usual one has 2,000 at most."""
_HANDSHAKE_RECORD = 22
_MAJOR_VERSION = 3
_CLIENT_HELLO = 1
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for."""

    name: str = ""
    """The server's, in lower case and without a dot at its end; none where it asks for none (RFC 6066 section 3)."""
    protocols: tuple[bytes, ...] = ()
    """As ALPN has them (RFC 7301)."""


def read_hello(data: bytes) -> ClientHello | None:
    """What stands in the first bytes of a connection; None while more of them are needed.

    A message may be spread over records in any way. Without a ClientHello, and with one larger than MAX_HELLO, nothing
    is asked for.
    """
    message = _message(data)
    if message is None:
        return None if len(data) < MAX_HELLO else ClientHello()
    try:
        return _read(message)
    except _Malformed:
        return ClientHello()


class _Malformed(Exception):
    """A size points beyond its end."""


def _message(data: bytes) -> bytes | None:
    """The first handshake message, empty where there is none, None while it is not whole."""
    message, at = bytearray(), 0
    while len(data) - at >= _RECORD_HEADER:
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE_RECORD or data[at + 1] != _MAJOR_VERSION or not size:
            return b""
        message += data[at + _RECORD_HEADER : at + _RECORD_HEADER + size]
        at += _RECORD_HEADER + size
        if message and message[0] != _CLIENT_HELLO:
            return b""
        whole = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        if len(message) >= _MESSAGE_HEADER and len(message) >= whole:
            return bytes(message[_MESSAGE_HEADER:whole])
    return b"" if data[:1] not in (b"", bytes((_HANDSHAKE_RECORD,))) else None


class _Reader:
    """Takes fields from the beginning of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise _Malformed
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Reader:
        """What stands behind its own size, a number of so many bytes."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


def _read(message: bytes) -> ClientHello:
    """The body of a ClientHello. Raises _Malformed."""
    if not message:
        return ClientHello()
    reader = _Reader(message)
    reader.take(2 + 32)  # version, random
    reader.vector(1)  # session
    reader.vector(2)  # ciphers
    reader.vector(1)  # compression
    if not reader:
        return ClientHello()
    name, protocols = "", tuple[bytes, ...]()
    for kind, value in _extensions(reader.vector(2)):
        if kind == _SERVER_NAME:
            name = _name(value)
        elif kind == _ALPN:
            protocols = tuple(_protocols(value.vector(2)))
    return ClientHello(name, protocols)


def _extensions(reader: _Reader) -> Iterator[tuple[int, _Reader]]:
    while reader:
        kind = reader.number(2)
        yield kind, reader.vector(2)


def _name(extension: _Reader) -> str:
    names = extension.vector(2)
    while names:
        kind, name = names.number(1), names.vector(2).rest()
        if kind == _HOST_NAME:
            return name.decode("ascii", "replace").lower().removesuffix(".")
    return ""


def _protocols(listed: _Reader) -> Iterator[bytes]:
    while listed:
        yield listed.vector(1).rest()
