"""Stream listeners, and a connection until its first byte: accepted, told by a balancer whose it is, given a place."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from turnsvr.net.accepting import Acceptor
from turnsvr.net.arrival import FirstBytes
from turnsvr.net.connections import Connection, Connections
from turnsvr.net.doors import PLAIN, Door, Doors, StreamListener
from turnsvr.net.proxied import HeaderWait, may_tell
from turnsvr.net.proxyheader import HeaderRefusal
from turnsvr.net.sockets import address_of, open_stream_listener
from turnsvr.stun.address import Address, Family

_WILDCARDS = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Entrance(ABC):
    """The stream listeners and the table of connections; who serves a connection is the subclass's to say."""

    def __init__(self, connections: Connections, doors: Doors, loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self._doors = doors
        self._loop = loop
        self._acceptors: dict[Address, Acceptor] = {}
        self._listeners: dict[Address, StreamListener] = {}
        """By bound address."""
        self._silent: dict[Connection, tuple[socket.socket, FirstBytes]] = {}
        """Who has sent nothing yet."""

    def listen(self, address: Address, transport: str = "tcp") -> Address:
        """Open a listener for TCP and TLS; port 0 picks one. Returns the bound address. Raises OSError."""
        return self._accept_on(open_stream_listener(address), StreamListener(transport, address))

    def _accept_on(self, opened: socket.socket, listener: StreamListener) -> Address:
        bound = address_of(opened.getsockname())
        self._listeners[bound] = listener
        self._acceptors[bound] = Acceptor(self._loop, opened, partial(self._accepted, listener))
        return bound

    def stop_accepting(self) -> None:
        """Close the listeners; twice is fine."""
        for acceptor in self._acceptors.values():
            acceptor.close()
        self._acceptors.clear()

    @property
    def lagging(self) -> int:
        """Connections whose clients read more slowly than they are sent to, of those that asyncio writes to."""
        return self._connections.lagging

    @property
    def evicted(self) -> int:
        """Connections that were ended to make room, since the start."""
        return self._connections.evicted

    @property
    def refused(self) -> int:
        """Connections for which there was no room, since the start."""
        return self._connections.refused

    @property
    def header_refusals(self) -> Mapping[HeaderRefusal, int]:
        """Connections that were refused for want of a PROXY header, by reason."""
        return self._connections.header_refusals.counts

    def __len__(self) -> int:
        """Connections."""
        return len(self._connections)

    @abstractmethod
    def _arrived(self, connected: socket.socket, connection: Connection, first: bytes) -> None:
        """Serve a connection that begins with these bytes, which are still to be read; none where it has ended."""

    def _accepted(self, listener: StreamListener, connected: socket.socket, peer: Any) -> None:
        client = address_of(peer)
        door = self._doors.get(listener, PLAIN)
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = address_of(connected.getsockname())
        except OSError:
            connected.close()
            return
        if door.balancers is None:
            self._enter(connected, self._connections.admit(client, server), door)
        elif may_tell(client.host, door.balancers):
            self._read_header(connected, client, server, door)
        else:
            connected.close()
            self._connections.header_refusals.add(client.host, HeaderRefusal.UNTRUSTED)

    def _read_header(self, connected: socket.socket, balancer: Address, server: Address, door: Door) -> None:
        """Have a balancer tell whose connection it is."""
        connection = self._connections.admit_balancer(balancer, server)
        if connection is None:
            connected.close()
            return

        def told(client: Address | None) -> None:
            connection.close()
            self._enter(connected, self._connections.admit(client or balancer, server, balancer), door)

        def refused(why: HeaderRefusal | None) -> None:
            connection.drop()
            self._connections.header_refusals.add(balancer.host, why)

        header = HeaderWait(self._loop, connected, told=told, refused=refused)
        connection.drop = giving_up(header, connected, connection)

    def _enter(self, connected: socket.socket, connection: Connection | None, door: Door) -> None:
        """Wait for what the client says first; without a place for the connection there is nothing to wait for."""
        if connection is None:
            connected.close()
            return
        connection.door = door

        self._await_first(connected, connection)

    def _door_at(self, server: Address) -> Door:
        """What holds for connections to this address of ours."""
        for host in (server.host, _WILDCARDS[server.family]):
            listener = self._listeners.get(Address(host, server.port))
            if listener is not None:
                return self._doors.get(listener, PLAIN)
        return PLAIN

    def _await_first(self, connected: socket.socket, connection: Connection) -> None:
        """Find out by its first bytes what a connection speaks."""

        def arrived(first: bytes) -> None:
            del self._silent[connection]
            self._arrived(connected, connection, first)

        arrival = FirstBytes(self._loop, connected, arrived)
        self._silent[connection] = connected, arrival

        def drop() -> None:
            self._silent.pop(connection, None)
            arrival.cancel()
            connected.close()
            connection.close()

        connection.drop = drop


def giving_up(under_way: Cancellable, connected: socket.socket, connection: Connection) -> Callable[[], None]:
    """What ends a connection that is not served yet, and what is under way for it."""

    def give_up() -> None:
        under_way.cancel()
        connected.close()
        connection.close()

    return give_up
