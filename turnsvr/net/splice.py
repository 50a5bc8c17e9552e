"""Connections that other servers take: each is joined with one to its server, and bytes pass both ways as they are.

While one end reads slowly the other is not read on, so that little waits of either. A connection that carries
nothing for a while ends; where there is no room for a new one, the one that has been idle for longest ends, of the
client that has most of them, or of the new one's own client where that has its share.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import structlog

from turnsvr.eviction import Evictable
from turnsvr.limits import client_of
from turnsvr.net.doors import Backend
from turnsvr.net.halfclose import end_writing
from turnsvr.net.proxyheader import write_header
from turnsvr.net.stream import ReadBuffer
from turnsvr.stun.address import Address, pack_host

CONNECT_SECONDS = 5.0
_AGAIN_SECONDS = 0.1
"""Until a Unix socket is tried again whose queue of connections is full."""
_HIGH = 65_536
"""Bytes that wait for one end when the other is read no more."""
_TELL_SECONDS = 60.0
"""Between two lines of the log that one server cannot be reached."""
_LINGER = 1.0
"""Seconds that a client may take to read that its server cannot be reached."""
_RECOUNT = 1.0
"""Seconds for which a connection that carries something stays where it is in the order of those that may end."""
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""What an HTTP client is told whose server cannot be reached (RFC 9110 section 15.6.3)."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SpliceLimits:
    """Bounds of what clients can take of other servers."""

    connections: int = 1_000
    connections_per_address: int = 100
    """From one IPv4 address or one IPv6 /64."""
    idle_timeout: float = 600.0
    """Seconds that a connection may carry nothing."""


class PassedConnections:
    """The table of connections that other servers take."""

    def __init__(self, limits: SpliceLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.evicted = 0
        """Connections that were ended to make room."""
        self.failures = 0
        """Connections whose server could not be reached."""
        self._loop = loop
        self._reads = ReadBuffer()
        self._open: set[PassedConnection] = set()
        self._by_client: Counter[bytes] = Counter()
        self._idle = Evictable[PassedConnection]()
        self._told: dict[Backend, tuple[float, int]] = {}
        """When the log was told of a server last, and how many failures there were since."""
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, backend: Backend, client: Address, server: Address, failed: bytes = b"") -> PassedConnection:
        """A connection of this client to this address of ours, for one protocol to be given to its transport.

        failed: what the client is told where the server cannot be reached.
        """
        key = client_of(pack_host(client.host))
        if self._by_client[key] >= self.limits.connections_per_address:
            self._evict(self._idle.oldest_of(key))
        elif len(self._open) >= self.limits.connections:
            self._evict(self._idle.first())
        header = write_header(client, server) if backend.header else b""
        splice = PassedConnection(self, backend, key, header, failed)
        self._open.add(splice)
        self._by_client[key] += 1
        self._idle.add(splice, key)
        return splice

    def start(self, connecting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(connecting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def failed(self, backend: Backend, error: OSError) -> None:
        """A server could not be reached."""
        self.failures += 1
        now = self._loop.time()
        told, since = self._told.get(backend, (now - _TELL_SECONDS, 0))
        if now - told < _TELL_SECONDS:
            self._told[backend] = told, since + 1
            return
        self._told[backend] = now, 0
        reason = error.strerror or "it does not answer"
        _log.warning("another server cannot be reached", server=str(backend), reason=reason, failures=since + 1)

    def is_busy(self, splice: PassedConnection) -> None:
        """It carries something: others end before it."""
        self._idle.discard(splice, splice.key)
        self._idle.add(splice, splice.key)

    def forget(self, splice: PassedConnection) -> None:
        if splice not in self._open:
            return
        self._open.remove(splice)
        self._idle.discard(splice, splice.key)
        self._by_client[splice.key] -= 1
        if not self._by_client[splice.key]:
            del self._by_client[splice.key]

    def keep(self, backends: Collection[Backend]) -> None:
        """Only these are named now."""
        self._told = {backend: told for backend, told in self._told.items() if backend in backends}

    async def close(self) -> None:
        """Drop every connection."""
        for splice in tuple(self._open):
            splice.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._open)

    def _evict(self, splice: PassedConnection | None) -> None:
        if splice is not None:
            self.evicted += 1
            splice.drop()


class PassedConnection:
    """One connection, with the one to its server: from PassedConnections.open() until both have ended."""

    def __init__(self, table: PassedConnections, backend: Backend, key: bytes, header: bytes, failed: bytes) -> None:
        self.key = key
        self.client = End(self, table._reads)
        """The protocol of the client's transport."""
        self._table = table
        self._loop = table._loop
        self._backend = backend
        self._header = header
        self._failed = failed
        self._server = End(self, table._reads)
        self._is_over = False
        self._last = self._counted = self._loop.time()
        self._timer = self._loop.call_later(table.limits.idle_timeout, self._check_idle)
        self._connecting: asyncio.Task[None] | None = None
        self.is_refused = False
        """Whether the server could not be reached: what the client still says goes nowhere."""

    def drop(self) -> None:
        """End both connections at once; twice is fine."""
        if self._is_over:
            return
        self._is_over = True
        self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        for end in (self.client, self._server):
            if end.transport is not None:
                end.transport.abort()
        self._table.forget(self)

    def other(self, end: End) -> End:
        return self._server if end is self.client else self.client

    def made(self, end: End) -> None:
        """An end has its transport."""
        if self._is_over:
            assert end.transport is not None
            end.transport.abort()
        elif end is self.client:
            self._connecting = self._table.start(self._connect())
        else:
            end.write(self._header)
            end.take_waiting()

    def carried(self) -> None:
        self._last = now = self._loop.time()
        if now - self._counted >= _RECOUNT and not self._is_over:
            self._counted = now
            self._table.is_busy(self)

    def lost(self, end: End) -> None:
        """An end has ended; the other one ends when it has sent what waits."""
        other = self.other(end)
        if end is self.client and other.transport is None:
            self.drop()
        elif other.transport is not None and not other.is_lost:
            other.transport.close()
        else:
            self.drop()

    async def _connect(self) -> None:
        place = self._backend.place
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if isinstance(place, str):
                    await self._loop.create_unix_connection(lambda: self._server, sock=await _connect_unix(place))
                else:
                    await self._loop.create_connection(lambda: self._server, place.host, place.port)
        except OSError as error:  # TimeoutError is one
            self._table.failed(self._backend, error)
            self._refuse()

    def _refuse(self) -> None:
        """Tell the client, and throw away what it still says: unread, it would reset the connection."""
        if self._is_over:
            return
        self.is_refused = True
        self.client.write(self._failed)
        self.client.end()
        if self.client.transport is not None:
            self.client.transport.resume_reading()
        self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER, self.drop)

    def _check_idle(self) -> None:
        left = self._last + self._table.limits.idle_timeout - self._loop.time()
        if left <= 0:
            self.drop()
        else:
            self._timer = self._loop.call_later(left, self._check_idle)


async def _connect_unix(path: str) -> socket.socket:
    """A connection to a Unix socket, as soon as its queue has room. Raises OSError.

    Where the queue is full the system gives up at once, and asyncio would take that for a connection.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        while True:
            try:
                connected.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return connected
    except BaseException:
        connected.close()
        raise


class End(asyncio.BufferedProtocol):
    """One end of a splice. Its bytes go to the other one, and wait until that is there."""

    def __init__(self, splice: PassedConnection, reads: ReadBuffer) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_lost = False
        self._splice = splice
        self._view = reads.view
        self._waiting = b""
        """What came before the other end was there: no more than was read already."""
        self._has_ended = False
        """Whether this end has said that it says no more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_HIGH)
        if self._splice.other(self).transport is None:
            self.transport.pause_reading()
        self._splice.made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._view[:nbytes])
        self._splice.carried()
        other = self._splice.other(self)
        if self._splice.is_refused:
            return
        if other.transport is None:
            self._waiting += data
        else:
            other.write(data)

    def take_waiting(self) -> None:
        """This end is there now: take what the other one has for it, and have that read on."""
        other = self._splice.other(self)
        self.write(other._waiting)
        other._waiting = b""
        if other._has_ended:
            self.end()
        elif other.transport is not None and not other.is_lost:
            other.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def end(self) -> None:
        """The other end says no more."""
        if self.transport is not None:
            end_writing(self.transport)

    def eof_received(self) -> bool:
        """Whether the connection stays, for what comes the other way."""
        self._has_ended = True
        other = self._splice.other(self)
        if self._splice.is_refused or other._has_ended:
            other.close()
            return False
        other.end()
        return self.transport is not None and self.transport.can_write_eof()

    def close(self) -> None:
        """End when what waits is sent."""
        if self.transport is not None:
            self.transport.close()

    def pause_writing(self) -> None:
        self._other_reads(False)

    def resume_writing(self) -> None:
        self._splice.carried()
        self._other_reads(True)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._splice.lost(self)

    def _other_reads(self, reads: bool) -> None:
        other = self._splice.other(self)
        if other.transport is None or other.is_lost:
            return
        if reads:
            other.transport.resume_reading()
        else:
            other.transport.pause_reading()
