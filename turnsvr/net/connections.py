"""Every TCP and TLS connection there is: how many at once, how many from one client, how long without an allocation.

Here a connection gets the number by which everything else tells it from others (see FiveTuple). A new one at the
addresses of one that is still in the table shows that the latter is gone, whose end comes first then.

Where there is no room, a connection without an allocation goes: the oldest of the address that has most of them, or of
the new one's own address where that has all it may. So a new one is refused only where allocations hold every place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from turnsvr.eviction import Evictable
from turnsvr.limits import client_of
from turnsvr.net.doors import PLAIN
from turnsvr.net.proxied import HeaderRefusals
from turnsvr.stun.address import Address, FiveTuple, Transport, pack_host

_MAX_NUMBER = 2**32 - 1
"""After it numbers begin anew; a connection of then at the same addresses has long been forgotten."""

_BALANCER = b"balancer "
"""In front of a key: a balancer that has not named its client yet. Longer than any client's key."""

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

    def __init__(
        self,
        connections: Connections,
        client: Address,
        server: Address,
        number: int,
        key: bytes,
        ends: tuple[Address, Address],
        seconds: float | None = None,
    ) -> None:
        """ends: of the connection itself, which of a client behind a balancer are the balancer's and ours.

        seconds: until it is first asked whether it has an allocation; without them as the limits say.
        """
        self.client = client
        self.server = server
        self.ends = ends
        self.number = number
        self.five_tuple: FiveTuple | None = None
        """Known once the first byte has told the transport."""
        self.drop: Callable[[], object] = lambda: None
        """Ends the connection at once, whatever its state, and tells the rules; set by what serves the connection."""
        self.key = key
        self.door = PLAIN
        """What holds at its listener."""
        self.closed = False
        self._is_lagging = False
        self._connections = connections
        self._had_allocation = False
        seconds = connections.limits.idle_timeout if seconds is None else seconds
        self._timer = connections.loop.call_later(seconds, self._check_idle)

    def speaks(self, transport: Transport) -> FiveTuple:
        """Its five-tuple, now that the transport is known."""
        self.five_tuple = FiveTuple(transport, self.client, self.server, self.number)
        return self.five_tuple

    def lag(self, is_lagging: bool) -> None:
        """Note whether much waits for this client now; one that is gone never lags."""
        is_lagging = is_lagging and not self.closed
        if is_lagging is not self._is_lagging:
            self._is_lagging = is_lagging
            self._connections.lagging += 1 if is_lagging else -1

    @property
    def has_allocation(self) -> bool:
        return self.five_tuple is not None and self._connections.has_allocation(self.five_tuple)

    @property
    def asked_at(self) -> float:
        """When it is asked next whether it has an allocation, on the loop's clock."""
        return self._timer.when()

    def close(self) -> None:
        """It is gone; closing twice is fine."""
        self.closed = True
        self.lag(False)
        self._timer.cancel()
        self._connections.forget(self)

    def _check_idle(self) -> None:
        """Stay while there is an allocation, and once more for the timeout after it has ended."""
        has_allocation = self.has_allocation
        if not has_allocation and not self._had_allocation:
            _log.debug("connection dropped", client=str(self.client), reason="no allocation")
            self.drop()
            return
        self._had_allocation = has_allocation
        self._connections.mark(self, evictable=not has_allocation)
        self._timer = self._connections.loop.call_later(self._connections.limits.idle_timeout, self._check_idle)


class Connections:
    """The table of connections."""

    def __init__(
        self, limits: StreamLimits, has_allocation: Callable[[FiveTuple], bool], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.limits = limits
        self.has_allocation = has_allocation
        self.loop = loop
        self.lagging = 0
        """Connections whose clients read more slowly than they are sent to, of those that asyncio writes to."""
        self.evicted = 0
        """Connections that were ended to make room."""
        self.refused = 0
        """Connections for which there was no room."""
        self.header_refusals = HeaderRefusals()
        self._waiting = Evictable[Connection]()
        """Those without an allocation; of one that has got its own since, this is found out when it is to go."""
        self._open: dict[tuple[Address, Address], Connection] = {}
        """By their ends."""
        self._last_number = 0
        self._by_number: dict[int, Connection] = {}
        self._by_client: Counter[bytes] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    def admit(self, client: Address, server: Address, through: Address | None = None) -> Connection | None:
        """A place for a connection that was accepted just now, None when there is none.

        through: the balancer that it came through.
        """
        return self._admit(client, server, through or client, client_of(pack_host(client.host)))

    def admit_balancer(self, balancer: Address, server: Address) -> Connection | None:
        """The same until the balancer has told whose connection it is; so many of one balancer have no bound."""
        return self._admit(balancer, server, balancer, _BALANCER + pack_host(balancer.host))

    def _admit(self, client: Address, server: Address, end: Address, key: bytes) -> Connection | None:
        former = self._open.get((end, server))
        if former is not None:
            _log.debug("connection dropped", client=str(client), reason="its client has opened another one")
            former.drop()
            former.close()
        full = self._full(key)
        if full and not self._evict(key, full):
            self.refused += 1
            _log.warning("connection refused", client=client.host, reason=full)
            return None
        self._last_number = self._last_number % _MAX_NUMBER + 1
        connection = Connection(self, client, server, self._last_number, key, (end, server))
        self._enter(connection)
        return connection

    @property
    def last_number(self) -> int:
        """The number of the connection that was accepted last."""
        return self._last_number

    def begin_behind(self, number: int) -> None:
        """Number new connections from there on."""
        self._last_number = number

    def restore(self, client: Address, server: Address, through: Address, number: int, seconds: float) -> Connection:
        """A place for a connection that another process has served until now, whatever the limits say.

        through: the balancer, or the client itself. seconds: as Connection has it.
        """
        key = client_of(pack_host(client.host))
        connection = Connection(self, client, server, number, key, (through, server), seconds)
        self._enter(connection)
        return connection

    def of(self, five_tuple: FiveTuple) -> Connection | None:
        """The connection of this very five-tuple."""
        return self._by_number.get(five_tuple.connection)

    def _enter(self, connection: Connection) -> None:
        self._open[connection.ends] = connection
        self._by_number[connection.number] = connection
        self._by_client[connection.key] += 1
        self._waiting.add(connection, connection.key)
        self._empty.clear()

    def mark(self, connection: Connection, *, evictable: bool) -> None:
        """Whether it may go to make room, counted from now on."""
        self._waiting.discard(connection, connection.key)
        if evictable:
            self._waiting.add(connection, connection.key)

    def forget(self, connection: Connection) -> None:
        if self._open.get(connection.ends) is not connection:
            return
        del self._open[connection.ends]
        self._by_number.pop(connection.number, None)
        self._waiting.discard(connection, connection.key)
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

    def _full(self, key: bytes) -> str:
        """The setting that leaves no room for one more of this client, none where there is room."""
        if self._by_client[key] >= self.limits.connections_per_address and not key.startswith(_BALANCER):
            return "limits.connections_per_address"
        return "limits.connections" if len(self._open) >= self.limits.connections else ""

    def _evict(self, key: bytes, full: str) -> bool:
        """Whether one has gone to make room."""
        only = full == "limits.connections_per_address"
        while (oldest := self._waiting.oldest_of(key) if only else self._waiting.first()) is not None:
            self._waiting.discard(oldest, oldest.key)
            if oldest.has_allocation:
                continue
            self.evicted += 1
            _log.warning("connection ended to make room", client=oldest.client.host, reason=full)
            oldest.drop()
            oldest.close()  # its place is free at once, whatever the transport has still to do
            return True
        return False
