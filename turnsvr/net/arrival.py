"""What a new connection speaks: its first byte tells, and is left in place for whoever reads next.

Clients send plain STUN to ports that were meant for TLS, so every listener takes both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum


class Speech(Enum):
    """What the first byte says."""

    PLAIN = "STUN or ChannelData"
    TLS = "TLS"
    UNKNOWN = "neither STUN nor TLS"
    NOTHING = "closed by the client"


_TLS_HANDSHAKE = 0x16
"""Content type of the record that holds a ClientHello (RFC 8446 section 5.1)."""


def judge(first: bytes) -> Speech:
    """What a connection speaks that begins with this byte, empty at its end (RFC 7983 section 7)."""
    if not first:
        return Speech.NOTHING
    byte = first[0]
    if byte == _TLS_HANDSHAKE:
        return Speech.TLS
    if byte <= 0x03 or 0x40 <= byte <= 0x7F:
        return Speech.PLAIN
    return Speech.UNKNOWN


class Arrival:
    """Waits for the first byte of a connection, then hands it on once; cancel() ends the wait."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connected: socket.socket, arrived: Callable[[Speech], None]
    ) -> None:
        self._loop = loop
        self._socket = connected
        self._arrived = arrived
        loop.add_reader(connected, self._readable)

    def cancel(self) -> None:
        self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        try:
            first = self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        self.cancel()
        self._arrived(judge(first))
