"""Every TCP and TLS connection there is: how many at once, how many from one client, how long without an allocation.

Here a connection gets the number by which everything else tells it from others (see FiveTuple). A new one at the
addresses of one that is still in the table shows that the latter is gone, whose end comes first then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from turnsvr.limits import client_of
from turnsvr.stun.address import Address, FiveTuple, Transport, pack_host

_MAX_NUMBER = 2**32 - 1
"""After it numbers begin anew; a connection of then at the same addresses has long been forgotten."""

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

    def __init__(self, connections: Connections, client: Address, server: Address, number: int, key: bytes) -> None:
        self.client = client
        self.server = server
        self.number = number
        self.five_tuple: FiveTuple | None = None
        """Known once the first byte has told the transport."""
        self.drop: Callable[[], object] = lambda: None
        """Ends the connection at once, whatever its state, and tells the rules; set by what serves the connection."""
        self.key = key
        self.closed = False
        self._is_lagging = False
        self._connections = connections
        self._had_allocation = False
        self._timer = connections.loop.call_later(connections.limits.idle_timeout, self._check_idle)

    def speaks(self, transport: Transport) -> FiveTuple:
        """Its five-tuple, now that the transport is known."""
        self.five_tuple = FiveTuple(transport, self.client, self.server, self.number)
        return self.five_tuple

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
        self._open: dict[tuple[Address, Address], Connection] = {}
        """By addresses of client and server."""
        self._last_number = 0
        self._by_client: Counter[bytes] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    def admit(self, client: Address, server: Address) -> Connection | None:
        """A place for a connection that was accepted just now, None when there is none."""
        former = self._open.get((client, server))
        if former is not None:
            _log.debug("connection dropped", client=str(client), reason="its client has opened another one")
            former.drop()
            former.close()
        key = client_of(pack_host(client.host))
        if len(self._open) >= self.limits.connections:
            _log.warning("connection refused", client=client.host, reason="limits.connections")
            return None
        if self._by_client[key] >= self.limits.connections_per_address:
            _log.warning("connection refused", client=client.host, reason="limits.connections_per_address")
            return None
        self._last_number = self._last_number % _MAX_NUMBER + 1
        connection = Connection(self, client, server, self._last_number, key)
        self._open[client, server] = connection
        self._by_client[key] += 1
        self._empty.clear()
        return connection

    def forget(self, connection: Connection) -> None:
        addresses = connection.client, connection.server
        if self._open.get(addresses) is not connection:
            return
        del self._open[addresses]
        self._by_client[connection.key] -= 1
        if not self._by_client[connection.key]:
            del self._by_client[connection.key]
        if not self._open:
            self._empty.set()

    def drop_all(self) -> None:
        for connection in tuple(self._open.values()):
            connection.drop()

    async def wait_empty(self) -> None:
        await self._empty.wait()

    def __len__(self) -> int:
        return len(self._open)
