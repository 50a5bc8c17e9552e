"""What a new connection speaks: its first bytes tell, in the open or inside TLS. This is the one place that decides.

Clients send plain STUN to ports that were meant for TLS, so every listener takes both, unless the settings say that its
door is for TLS alone (doors.py). No client begins with
ChannelData, which needs an allocation. Letters, as of an HTTP request, look like ChannelData: their sender gets an
answer that says so, or is cut off, without a wait for more.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from enum import Enum

FIRST_BYTES = 256
"""As many are looked at; a decision never waits for more than the first."""

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""The answer to an HTTP request (RFC 9110 section 15.5.1)."""


class Speech(Enum):
    """What the first bytes say."""

    STUN = "STUN"
    TLS = "TLS"
    HTTP = "HTTP"
    UNKNOWN = "neither STUN nor TLS"
    NOTHING = "closed by the client"


_TLS_HANDSHAKE = 0x16
"""Content type of the record that holds a ClientHello (RFC 8446 section 5.1)."""
_STUN_LAST = 0x03
"""The highest first byte of STUN where it shares a port (RFC 7983 section 7)."""
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ", b"PRI ")
"""How HTTP requests usually begin (RFC 9110 section 9, RFC 5789, RFC 9113 section 3.4)."""
_REQUEST_LINE = re.compile(rb"[A-Z-]+ [^\r\n]+ HTTP/")
"""How any of them begins (RFC 9112 section 3)."""

LINGER = 1.0
"""Seconds that a client which was told its last word may take to close its end."""
_THROWN_AWAY = 65_536


HTTP_PROTOCOLS = ("http/1.1", "h2")
"""As ALPN names them, the first one where both are spoken."""
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
"""Characters of a method (RFC 9110 section 5.6.2)."""


def may_be_http(first: bytes) -> bool:
    """Whether a server of HTTP may be asked what these first bytes mean; not where they begin a PROXY header."""
    return first[:1] != b"" and first[0] in _TOKEN and not first.startswith(b"PROXY ")


def judge(first: bytes, protocol: str = "") -> Speech:
    """What a connection speaks whose first bytes are these, none at its end.

    protocol: what ALPN has agreed upon, where it has; who chose HTTP speaks it. What may be STUN is decided to be so:
    where frames are taken apart every further byte is looked at as it comes.
    """
    if not first:
        return Speech.NOTHING
    if protocol in HTTP_PROTOCOLS:
        return Speech.HTTP
    if first[0] <= _STUN_LAST:
        return Speech.STUN
    if first[0] == _TLS_HANDSHAKE:
        return Speech.TLS
    return Speech.HTTP if _is_http(first) else Speech.UNKNOWN


def last_word(speech: Speech) -> bytes:
    """What a connection is told that is closed for what it speaks."""
    return BAD_REQUEST if speech is Speech.HTTP else b""


def _is_http(first: bytes) -> bool:
    """Whether these are the first bytes of an HTTP request, or may be, where only a few have come."""
    return _REQUEST_LINE.match(first) is not None or any(
        first.startswith(method) or method.startswith(first) for method in _METHODS
    )


class FirstBytes:
    """Waits for a connection's first bytes, leaves them in place, and tells of them once; cancel() ends the wait."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connected: socket.socket, arrived: Callable[[bytes], None]
    ) -> None:
        """arrived is told the first bytes, none where the client has left again."""
        self._loop = loop
        self._socket = connected
        self._arrived = arrived
        self.resume()

    def cancel(self) -> None:
        self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Wait again after cancel()."""
        self._loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        try:
            first = self._socket.recv(FIRST_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        self.cancel()
        self._arrived(first)


class Farewell:
    """Says a last word and closes a connected socket, once the client has closed its end or some time has passed.

    The client sees the end at once. What it still sends is thrown away meanwhile: a socket that is closed with bytes
    unread resets the connection, and the last word may be lost with it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connected: socket.socket, word: bytes, over: Callable[[], object]
    ) -> None:
        """over: called once, when the socket is to be closed; cancel() forgoes that."""
        self._loop = loop
        self._socket = connected
        self._over = over
        linger = LINGER
        try:
            if word:
                connected.send(word)
            connected.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            linger = 0.0
        self._timer = loop.call_later(linger, self._end)
        loop.add_reader(connected, self._readable)

    def cancel(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        try:
            if self._socket.recv(_THROWN_AWAY):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._end()

    def _end(self) -> None:
        self.cancel()
        self._over()
