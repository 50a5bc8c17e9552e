"""Every TCP and TLS connection there is: how many at once, how many from one client, how long without an allocation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from turnsvr.limits import client_of
from turnsvr.stun.address import Address, FiveTuple, pack_host

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of what stream clients can take."""

    connections: int = 10_000
    connections_per_address: int = 200
    """From one IPv4 address or one IPv6 /64."""
    idle_timeout: float = 30.0
    """Seconds that a connection may stay without an allocation."""
    buffer: int = 262_144
    """Bytes that may wait for one slow client."""


class Connection:
    """One accepted connection, from accept() until close()."""

    def __init__(self, connections: Connections, client: Address, key: bytes) -> None:
        self.client = client
        self.five_tuple: FiveTuple | None = None
        """Known once the first byte has told the transport."""
        self.drop: Callable[[], object] = lambda: None
        """Ends the connection at once, whatever state it is in; whoever serves it sets this."""
        self.key = key
        self.closed = False
        self._is_lagging = False
        self._connections = connections
        self._had_allocation = False
        self._timer = connections.loop.call_later(connections.limits.idle_timeout, self._check_idle)

    def lag(self, is_lagging: bool) -> None:
        """Whether much waits for this client now; one that is gone never lags."""
        is_lagging = is_lagging and not self.closed
        if is_lagging is not self._is_lagging:
            self._is_lagging = is_lagging
            self._connections.lagging += 1 if is_lagging else -1

    def close(self) -> None:
        """It is gone; closing twice is fine."""
        self.closed = True
        self.lag(False)
        self._timer.cancel()
        self._connections.forget(self)

    def _check_idle(self) -> None:
        """Stay while there is an allocation, and once more for the timeout after it has ended."""
        has_allocation = self.five_tuple is not None and self._connections.has_allocation(self.five_tuple)
        if not has_allocation and not self._had_allocation:
            _log.debug("connection dropped", client=str(self.client), reason="no allocation")
            self.drop()
            return
        self._had_allocation = has_allocation
        self._timer = self._connections.loop.call_later(self._connections.limits.idle_timeout, self._check_idle)


class Connections:
    """The table of connections. When it is full a new one is refused; who is in stays until idle."""

    def __init__(
        self, limits: StreamLimits, has_allocation: Callable[[FiveTuple], bool], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.limits = limits
        self.has_allocation = has_allocation
        self.loop = loop
        self.lagging = 0
        """Connections whose clients read more slowly than they are sent to, of those that asyncio writes to."""
        self._open: set[Connection] = set()
        self._by_client: Counter[bytes] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    def admit(self, client: Address) -> Connection | None:
        """A place for one more connection, None when there is none."""
        key = client_of(pack_host(client.host))
        if len(self._open) >= self.limits.connections:
            _log.warning("connection refused", client=client.host, reason="limits.connections")
            return None
        if self._by_client[key] >= self.limits.connections_per_address:
            _log.warning("connection refused", client=client.host, reason="limits.connections_per_address")
            return None
        connection = Connection(self, client, key)
        self._open.add(connection)
        self._by_client[key] += 1
        self._empty.clear()
        return connection

    def forget(self, connection: Connection) -> None:
        if connection not in self._open:
            return
        self._open.remove(connection)
        self._by_client[connection.key] -= 1
        if not self._by_client[connection.key]:
            del self._by_client[connection.key]
        if not self._open:
            self._empty.set()

    def drop_all(self) -> None:
        for connection in tuple(self._open):
            connection.drop()

    async def wait_empty(self) -> None:
        await self._empty.wait()

    def __len__(self) -> int:
        return len(self._open)
