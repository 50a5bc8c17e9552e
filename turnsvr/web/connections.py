"""Every HTTP connection: how many there are, how many from one address, how long each may wait, which one has to go.

A connection that waits for its client (for TLS, a head, a body, or for the client to read), or for its request's turn
(requestturns.py), has a deadline, counted from when the wait began, so that single bytes do not extend it. It may be
ended at any time to make room for a new one. A connection whose request is with the application, or that carries a
signalling session, is not ended to make room; how many of those there can be is bounded where sessions and upgrades
begin (signalling.py), and where figures are read (health.py).

So a new connection is refused only where its own address holds all that one address may, in sessions. Otherwise the
connection goes that has waited longest, of the address that has most of them waiting: who comes from few addresses ends
his own connections, and who comes from many has to be faster than a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from turnsvr.config.ranges import AddressRange
from turnsvr.eviction import Evictable
from turnsvr.limits import client_of
from turnsvr.net.proxied import HeaderRefusals
from turnsvr.net.turns import Turns


class Phase(Enum):
    """What a connection waits for."""

    PROXY = "the header of a balancer"
    TLS = "the end of the TLS handshake"
    HEAD = "the head of a request"
    NEXT = "another request"
    BODY = "the body of a request"
    READER = "the client to read what it is sent"
    END = "its end"
    TURN = "the turn of its request"
    ANSWER = "the application"
    SESSION = "messages of a WebSocket"


DEADLINES: dict[Phase, float] = {
    Phase.PROXY: 10.0,
    Phase.TLS: 10.0,
    Phase.HEAD: 10.0,
    Phase.NEXT: 15.0,
    Phase.BODY: 15.0,
    Phase.READER: 15.0,
    Phase.END: 5.0,
    Phase.TURN: 30.0,
}
"""Seconds for what depends on the client, or on how many others there are. ANSWER has none, since no request keeps the
application busy for long but those of signalling, which has deadlines of its own; neither has SESSION, whose pings tell
whether its client lives."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of what HTTP clients can take."""

    connections: int
    per_address: int
    """From one IPv4 address or one IPv6 /64."""
    proxies: tuple[AddressRange, ...] = ()
    """Addresses that many clients come from: the bound of one address does not hold for them."""
    favoured: tuple[AddressRange, ...] = ()
    """Addresses whose connections go last, and whose TLS handshakes come first: strangers do not push them out."""


class HttpConnection:
    """One accepted connection, from accept() until close()."""

    def __init__(self, table: HttpConnections, source: bytes | None, *, favoured: bool) -> None:
        self.source = source
        """The address for whose bound it counts; None where it counts for none."""
        self.favoured = favoured
        self.client: tuple[str, int] | None = None
        """The client's address where a balancer has told it; set by the server of the connection."""
        self.drop: Callable[[], object] = lambda: None
        """Ends the connection at once, whatever state it is in; set by the server of the connection."""
        self.closed: Callable[[], object] = lambda: None
        """Called when it is gone; set by the server of the connection."""
        self._table = table
        self._wait: tuple[Phase, object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Future[bool] | None = None
        """Whether the connection is there when the turn of its request has come; None where none waits for that."""

    @property
    def is_open(self) -> bool:
        """Whether it has its place still."""
        return self in self._table

    async def turn(self, turns: Turns, *, first: bool = False) -> bool:
        """Wait for the turn of its request, which may come first; False where the connection is gone before."""
        self._turn = came = self._table.loop.create_future()

        def come() -> None:
            if not came.done():
                came.set_result(True)

        step = turns.ask(self.source or b"", come, first=first)
        if self._wait is not None:
            self.waits(*self._wait)
        try:
            is_there: bool = await came
        finally:
            step.cancel()
            self._turn = None
            if self._wait is not None and self._wait[0] is Phase.TURN:
                self.waits(Phase.ANSWER, self._wait[1])
        return is_there

    def waits(self, what: Phase, of: object = None) -> None:
        """What it waits for from now on; of tells one request from another, where they wait for the same."""
        if what is Phase.ANSWER and self._turn is not None:
            what = Phase.TURN
        if self._wait == (what, of) or self not in self._table:
            return
        self._wait = (what, of)
        self._stop_timer()
        seconds = DEADLINES.get(what)
        self._table.mark(self, evictable=seconds is not None)
        if seconds is not None:
            self._timer = self._table.loop.call_later(seconds, self._late)

    def close(self) -> None:
        """It is gone; closing twice is fine."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(False)
        self._stop_timer()
        self._table.forget(self)
        self.closed()

    def _late(self) -> None:
        self._timer = None
        self.drop()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HttpConnections:
    """The table of connections, of one part of the server: its listeners share it."""

    def __init__(self, limits: HttpLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.loop = loop
        self.evicted = 0
        """Connections that were ended to make room."""
        self.refused = 0
        """Connections for which there was no room."""
        self.header_refusals = HeaderRefusals()
        self._open: set[HttpConnection] = set()
        self._by_source: Counter[bytes] = Counter()
        self._strangers = Evictable[HttpConnection]()
        self._favoured = Evictable[HttpConnection]()

    def admit(self, host: str) -> HttpConnection | None:
        """A place for one more connection from this IP address, or from an empty one over a Unix socket.

        None where there is no room and nothing that may go.
        """
        address = _address(host)
        source = None if address is None or _in(address, self.limits.proxies) else client_of(address.packed)
        return self._admit(address, source)

    def admit_balancer(self, host: str) -> HttpConnection | None:
        """The same until the balancer has told whose connection it is; so many of one balancer have no bound."""
        return self._admit(_address(host), None)

    def _admit(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, source: bytes | None
    ) -> HttpConnection | None:
        favoured = address is None or _in(address, self.limits.favoured)
        if not self._make_room(source):
            self.refused += 1
            return None
        connection = HttpConnection(self, source, favoured=favoured)
        self._open.add(connection)
        if source is not None:
            self._by_source[source] += 1
        return connection

    def mark(self, connection: HttpConnection, *, evictable: bool) -> None:
        """Whether it may go to make room, counted from now on."""
        waiting = self._favoured if connection.favoured else self._strangers
        waiting.discard(connection, connection.source)
        if evictable:
            waiting.add(connection, connection.source)

    def forget(self, connection: HttpConnection) -> None:
        if connection not in self._open:
            return
        self.mark(connection, evictable=False)
        self._open.remove(connection)
        if connection.source is not None:
            self._by_source[connection.source] -= 1
            if not self._by_source[connection.source]:
                del self._by_source[connection.source]

    def drop_all(self) -> None:
        for connection in tuple(self._open):
            connection.drop()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, connection: HttpConnection) -> bool:
        return connection in self._open

    def _make_room(self, source: bytes | None) -> bool:
        if source is not None and self._by_source[source] >= self.limits.per_address:
            return self._evict(self._strangers.oldest_of(source) or self._favoured.oldest_of(source))
        if len(self._open) >= self.limits.connections:
            return self._evict(self._strangers.first() or self._favoured.first())
        return True

    def _evict(self, connection: HttpConnection | None) -> bool:
        if connection is None:
            return False
        self.evicted += 1
        connection.drop()
        connection.close()  # its place is free at once, whatever the transport has still to do
        return True


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, ranges: Iterable[AddressRange]) -> bool:
    return any(address in each for each in ranges)
