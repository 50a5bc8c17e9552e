"""A connection that a server has joined with one to a peer (RFC 6062): bytes both ways, each way with an end."""

from __future__ import annotations

import asyncio

_ROOM = 262_144
"""Bytes that wait for read() before the connection is not read any more; twice as many may."""


class RawStream:
    """What a StreamLink carries from its ConnectionBind on."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._reader = asyncio.StreamReader(_ROOM)
        self._reader.set_transport(transport)
        self._room = asyncio.Event()
        self._room.set()
        self._lost = False

    async def read(self, most: int = 65_536) -> bytes:
        """At most so many bytes that the peer has sent, b"" behind the last. Raises OSError."""
        return await self._reader.read(most)

    async def read_exactly(self, size: int) -> bytes:
        """So many bytes. Raises asyncio.IncompleteReadError where the peer sends less, OSError."""
        return await self._reader.readexactly(size)

    async def write(self, data: bytes) -> None:
        """Send to the peer; waits while much waits to be sent. Raises ConnectionError."""
        if self._lost:
            raise ConnectionResetError("the connection is closed")
        self.transport.write(data)
        await self._room.wait()

    def end(self) -> None:
        """Send no more. Over TLS that ends the connection."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    # From the link

    def received(self, data: bytes) -> None:
        if data:
            self._reader.feed_data(data)

    def ended(self) -> None:
        self._reader.feed_eof()

    def lost(self, error: Exception | None) -> None:
        self._lost = True
        self._room.set()
        if error is not None:
            self._reader.set_exception(error)
        else:
            self._reader.feed_eof()

    def pause(self) -> None:
        self._room.clear()

    def resume(self) -> None:
        self._room.set()
