"""Connections that another process goes on with: those over plain TCP. TLS stays where its keys are.

turnsvr/relay/moving.py has the order in which things are done, and the words.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from turnsvr.net.arrival import Speech, judge
from turnsvr.net.connections import Connection
from turnsvr.net.doors import StreamListener
from turnsvr.net.stream import StreamProtocol
from turnsvr.net.streams import Streams
from turnsvr.relay.moving import Rest, StreamRest
from turnsvr.stun.address import Address, FiveTuple, Transport

_NOTHING = StreamRest(b"", b"")
_FIRST_MESSAGE = 2048
"""Bytes of a new connection in which its first message is looked for."""

Rests = Mapping[FiveTuple, StreamRest]
"""What is on its way on connections, where there is anything."""


@dataclass(frozen=True, slots=True)
class GivenConnection:
    """A connection on its way. The descriptor is the giver's, who keeps it until leave()."""

    descriptor: int
    client: Address
    server: Address
    through: Address
    """The balancer, or the client itself."""
    number: int
    asked_at: float
    """When it is asked whether it has an allocation, in seconds of time.monotonic()."""
    is_silent: bool
    """Whether it has sent nothing yet."""

    @property
    def five_tuple(self) -> FiveTuple:
        return FiveTuple(Transport.TCP, self.client, self.server, self.number)


class MovableStreams(Streams):
    """Streams that can be given and taken."""

    pass_back: Callable[[GivenConnection], bool] | None = None
    """Called with a connection whose first message names what the process before this one may serve; nothing is read of
    it. Returns whether that one has it now; the descriptor stays ours. None while there is no such process."""

    # The giver

    @property
    def last_number(self) -> int:
        """The number of the last connection."""
        return self._connections.last_number

    def listeners(self) -> dict[Address, int]:
        """Descriptors by bound address."""
        return {address: acceptor.fileno() for address, acceptor in self._acceptors.items()}

    def freeze(self) -> None:
        """Accept no connection, and read no connection's first bytes, until thaw(); they wait in the system."""
        for acceptor in self._acceptors.values():
            acceptor.pause()
        for _, arrival in self._silent.values():
            arrival.cancel()

    def thaw(self) -> None:
        """Go on."""
        for acceptor in self._acceptors.values():
            acceptor.resume()
        for _, arrival in self._silent.values():
            arrival.resume()

    def given(self, adopted: Mapping[FiveTuple, int]) -> list[GivenConnection]:
        """What can be given; adopted: descriptors of those that the pump reads."""
        found = []
        for five_tuple, descriptor in adopted.items():
            connection = self._connections.of(five_tuple)
            if connection is not None:
                found.append(_given(connection, descriptor))
        for five_tuple, protocol in self._can_part():
            connection = self._connections.of(five_tuple)
            if connection is not None:
                found.append(_given(connection, protocol.descriptor()))
        found += [_given(each, connected.fileno(), is_silent=True) for each, (connected, _) in self._silent.items()]
        return found

    def part(self, given: Iterable[GivenConnection]) -> set[FiveTuple]:
        """Touch these no more, of those that the pump does not read; which stay, or are gone, after all."""
        missing = set()
        for each in given:
            five_tuple = each.five_tuple
            if each.is_silent:
                connection = self._connections.of(five_tuple)
                if connection is None or connection not in self._silent:
                    missing.add(five_tuple)
            elif five_tuple not in self._adopted:
                protocol = self._attached.get(five_tuple)
                if protocol is None or not protocol.can_part():
                    missing.add(five_tuple)
                else:
                    protocol.part()
        return missing

    def is_gone(self, five_tuple: FiveTuple) -> bool:
        """Whether a connection has closed."""
        return self._connections.of(five_tuple) is None

    def rests(self, given: Iterable[GivenConnection], missing: Collection[FiveTuple], rest: Rest) -> Rests:
        """What is on its way on those that have parted; rest: what the pump says, which has parted as well."""
        found = dict(rest.streams)
        for each in given:
            five_tuple = each.five_tuple
            protocol = self._attached.get(five_tuple)
            if protocol is not None and five_tuple not in missing:
                left = protocol.rest(rest.waiting.get(five_tuple, ()))
                if left.pending:
                    found[five_tuple] = left
        return found

    def rejoin(self, given: Iterable[GivenConnection]) -> None:
        """Serve them again after part()."""
        for each in given:
            protocol = self._attached.get(each.five_tuple)
            if protocol is not None:
                protocol.rejoin()

    def leave(self, given: Iterable[GivenConnection], missing: Collection[FiveTuple]) -> None:
        """Close what is the taker's now, and the listeners. The pump has left before."""
        for acceptor in self._acceptors.values():
            acceptor.close()
        self._acceptors.clear()
        for each in given:
            connection = self._connections.of(each.five_tuple)
            if connection is None or each.five_tuple in missing:
                continue
            if each.five_tuple in self._adopted:
                self._adopted_closed(each.five_tuple)
            else:
                connection.drop()

    # The taker

    def begin_behind(self, number: int) -> None:
        """Number new connections from there on."""
        self._connections.begin_behind(number)

    def listen_on(self, descriptor: int, address: Address, transport: str) -> Address:
        """Serve a listening socket from serve() on, as listen() would; it is ours from here on."""
        opened = socket.socket(fileno=descriptor)
        opened.setblocking(False)
        bound = self._accept_on(opened, StreamListener(transport, address))
        self._acceptors[bound].pause()
        return bound

    def take(self, given: Iterable[GivenConnection], now: float) -> None:
        """Connections whose descriptors are ours from here on; they are served from attach() and serve() on."""
        self._taken: dict[FiveTuple, tuple[GivenConnection, Connection]] = {}
        for each in given:
            seconds = max(0.0, each.asked_at - now)
            connection = self._connections.restore(each.client, each.server, each.through, each.number, seconds)
            self._taken[each.five_tuple] = each, connection
            if each.is_silent:
                continue
            connection.speaks(Transport.TCP)
            connected = socket.socket(fileno=each.descriptor)
            connected.setblocking(False)
            if not self._adopt(connected, connection, each.five_tuple):
                connected.detach()

    def discard(self, missing: Iterable[FiveTuple]) -> None:
        """These have not come after all; to be called before attach()."""
        for five_tuple in missing:
            each, connection = self._taken.pop(five_tuple, (None, None))
            if each is None or connection is None:
                continue
            if five_tuple in self._adopted:
                self._engine.pump.hang_up(five_tuple)
                self._adopted_closed(five_tuple)
            else:
                os.close(each.descriptor)
                connection.close()

    async def attach(self, rests: Rests) -> None:
        """Go on with the clients that the pump does not read; on return it can write to them."""
        begun = []
        for five_tuple, (each, connection) in self._taken.items():
            if five_tuple in self._adopted or connection.closed or each.is_silent:
                continue
            connected = socket.socket(fileno=each.descriptor)
            connected.setblocking(False)
            rest = rests.get(five_tuple, _NOTHING)
            begun.append(self._serve(connected, connection, five_tuple, None, rest=rest))
        await asyncio.gather(*begun, return_exceptions=True)

    def serve(self) -> None:
        """Accept, and look at the first bytes of who has sent none."""
        for acceptor in self._acceptors.values():
            acceptor.resume()
        for each, connection in self._taken.values():
            if each.is_silent and not connection.closed:
                connected = socket.socket(fileno=each.descriptor)
                connected.setblocking(False)
                connection.door = self._door_at(connection.server)
                self._await_first(connected, connection)
        self._taken.clear()

    # Afterwards

    def take_passed(self, given: GivenConnection) -> None:
        """Serve a connection that another process has accepted and read nothing of; the descriptor is ours."""
        connected = socket.socket(fileno=given.descriptor)
        connected.setblocking(False)
        through = None if given.through == given.client else given.through
        self._enter(
            connected, self._connections.admit(given.client, given.server, through), self._door_at(given.server)
        )

    def _arrived(self, connected: socket.socket, connection: Connection, first: bytes) -> None:
        if not self._passes_back(connected, connection, first):
            super()._arrived(connected, connection, first)

    def _passes_back(self, connected: socket.socket, connection: Connection, first: bytes) -> bool:
        """Whether the process before this one goes on with a connection."""
        if self.pass_back is None or connection.door.tls_only or judge(first) is not Speech.STUN:
            return False
        try:
            data = connected.recv(_FIRST_MESSAGE, socket.MSG_PEEK)
        except OSError:
            return False
        given = _given(connection, connected.fileno(), is_silent=True)
        if not self._engine.server.is_about_another(data) or not self.pass_back(given):
            return False
        connection.close()
        connected.close()
        return True

    def _can_part(self) -> Sequence[tuple[FiveTuple, StreamProtocol]]:
        return [(five_tuple, each) for five_tuple, each in self._attached.items() if each.can_part()]


def _given(connection: Connection, descriptor: int, *, is_silent: bool = False) -> GivenConnection:
    return GivenConnection(
        descriptor,
        connection.client,
        connection.server,
        connection.ends[0],
        connection.number,
        connection.asked_at,
        is_silent,
    )
