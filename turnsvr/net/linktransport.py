"""A TLS connection whose hands the pump's OpenSSL has shaken, for asyncio's protocols: what is no TURN goes on here.

It reads and writes a record at a time on the loop. TURN never comes this way: the pump adopts it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque

from turnsvr.net.arrival import Farewell
from turnsvr.relay.api import TlsHandshake
from turnsvr.stun.address import Address

_RECORD = 16_384
_RECORDS_A_TURN = 4
"""Read in one turn of the loop, before other connections have theirs."""
_HIGH, _LOW = 65_536, 16_384
"""Bytes that wait to be sent when the protocol is told to pause, and to go on."""


class LinkTransport(asyncio.Transport):
    """Owns the socket. Reads from the moment that a protocol is set."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        tls: TlsHandshake,
        client: Address,
        server: Address,
    ) -> None:
        super().__init__({"peername": client, "sockname": server, "sslcontext": tls})
        self._loop = loop
        self._socket = connected
        self._tls = tls
        self._protocol: asyncio.BaseProtocol | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._high, self._low = _HIGH, _LOW
        self._is_reading = False
        self._is_paused = False
        """Whether the protocol is told to write no more."""
        self._is_closing = False
        self._is_lost = False
        self._again: asyncio.Handle | None = None
        self._farewell: Farewell | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        is_first, self._protocol = self._protocol is None, protocol
        if is_first:
            self.resume_reading()

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    # Reading

    def is_reading(self) -> bool:
        return self._is_reading

    def resume_reading(self) -> None:
        if self._is_reading or self._is_closing:
            return
        self._is_reading = True
        self._loop.add_reader(self._socket, self._read)
        self._again = self._loop.call_soon(self._read)  # OpenSSL may have the rest of a record

    def pause_reading(self) -> None:
        if not self._is_reading:
            return
        self._is_reading = False
        self._loop.remove_reader(self._socket)
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _read(self) -> None:
        for _ in range(_RECORDS_A_TURN):
            if not self._is_reading:
                return
            try:
                data = self._tls.receive(_RECORD)
            except ConnectionError as error:
                self._lose(error)
                return
            if data is None:
                return
            if not data:
                self._ended()
                return
            self._deliver(data)
        if self._is_reading:
            self._again = self._loop.call_soon(self._read)

    def _deliver(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            feed_buffered(protocol, data)
        else:
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(data)

    def _ended(self) -> None:
        """The client has said that it says no more; as in asyncio's own TLS, that ends both ways."""
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        self.pause_reading()
        protocol.eof_received()
        self.close()

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        view, waits = memoryview(data), bool(self._queue)
        self._queue.extend(bytes(view[at : at + _RECORD]) for at in range(0, len(view), _RECORD))
        self._queued += len(view)
        if not waits:
            self._send()
        self._tell_protocol()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._queued

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low
        self._tell_protocol()

    def _writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self._send()
        self._tell_protocol()

    def _send(self) -> None:
        """Send what waits, as far as the socket takes it."""
        try:
            while self._queue and self._tls.send(self._queue[0]):
                self._queued -= len(self._queue.popleft())
        except ConnectionError as error:
            self._lose(error)
            return
        if self._queue:
            self._loop.add_writer(self._socket, self._writable)
        elif self._is_closing:
            self._say_goodbye()

    def _tell_protocol(self) -> None:
        """Have the protocol pause, or go on."""
        if self._is_lost or self._protocol is None:
            return
        if not self._is_paused and self._queued > self._high:
            self._is_paused = True
            self._protocol.pause_writing()
        elif self._is_paused and self._queued <= self._low:
            self._is_paused = False
            self._protocol.resume_writing()

    # The end

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if self._is_closing:
            return
        self.pause_reading()
        self._is_closing = True
        if not self._queue:
            self._say_goodbye()

    def abort(self) -> None:
        self._lose(None)

    def _say_goodbye(self) -> None:
        """End TLS and the connection, and throw away what the client still sends: unread, it would reset both."""
        if self._is_lost or self._farewell is not None:
            return
        self._tls.farewell(b"")
        self._farewell = Farewell(self._loop, self._socket, b"", lambda: self._lose(None))

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self.pause_reading()
        self._is_closing = self._is_lost = True
        self._queue.clear()
        self._queued = 0
        if self._farewell is not None:
            self._farewell.cancel()
        self._loop.remove_writer(self._socket)
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)


def feed_buffered(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Give a protocol bytes that were read for it."""
    view = memoryview(data)
    while view:
        room = memoryview(protocol.get_buffer(len(view)))
        size = min(len(room), len(view))
        room[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


def hand_over(transport: asyncio.Transport, protocol: asyncio.BaseProtocol, first: bytes) -> None:
    """Have a protocol go on with a connection of which these bytes were read already."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if not first:
        return
    if isinstance(protocol, asyncio.BufferedProtocol):
        feed_buffered(protocol, first)
    else:
        assert isinstance(protocol, asyncio.Protocol)
        protocol.data_received(first)
