"""Sockets of peers that are reached over TCP (RFC 6062), as both pumps use them: until a client's connection has one.

A session for TCP listens at its relayed transport addresses, and connects from there. A connection that is made or
accepted is not read until it is joined: what the peer sends meanwhile is the kernel's to bound, by the TCP window. How
bytes move from then on is the pump's matter.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from turnsvr.plane import ConnectPeer, OpenRelay
from turnsvr.relay.api import Handler, Opened, PumpSettings, RelayFailure
from turnsvr.relay.joining import Joiner
from turnsvr.relay.ports import OpenedPort, RelayPorts
from turnsvr.relay.sockets import reset_when_closed, socket_address, without_zone
from turnsvr.relay.splice import Count, Splice
from turnsvr.stun.address import Address, Family

_BACKLOG = 16
"""Peers that the system has accepted and we have not."""
_BATCH = 16
"""Peers that are accepted in one turn of the loop, before other sockets have theirs."""
_PAUSE = 0.5
"""Seconds without accepting after the system ran out of descriptors or memory."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = structlog.get_logger()


class ListeningSocket:
    """A relayed transport address at which peers may connect, and from which they are connected to."""

    def __init__(self, address: Address, buffer: int = 0) -> None:
        """Bind to exactly this address, and listen. Raises OSError, also where another socket listens there."""
        self.address = address
        self.socket = _stream_socket(address.family)
        try:
            self.socket.bind(socket_address(address))
            self.socket.listen(_BACKLOG)
            # Only now, so that no other socket has hidden the failure: connect() binds to the same address.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except BaseException:
            self.socket.close()
            raise

    def discard(self) -> None:
        """Nothing comes to a listening socket that is to be thrown away."""

    def hear_errors(self, wanted: bool) -> None:
        """The system tells of those with the connection that they end."""

    def close(self) -> None:
        self.socket.close()


class _Relay:
    """One relayed transport address of a session."""

    def __init__(self, session: int, opened: OpenedPort[ListeningSocket]) -> None:
        self.session = session
        self.opened = opened
        self.pause: asyncio.TimerHandle | None = None


class _Connection:
    """One to a peer. socket until it is joined, then end() is to be called for its end."""

    def __init__(self, session: int, family: Family, connected: socket.socket | None) -> None:
        self.session = session
        self.family = family
        self.socket = connected
        self.is_connecting = False
        self.end: Callable[[], object] | None = None


class _Nobody:
    """A Joint without a peer."""

    def received(self, data: bytes) -> None: ...

    def ended(self) -> None: ...

    def drained(self) -> None: ...

    def lost(self) -> None: ...


class TcpRelays:
    """The relayed transport addresses for TCP of a pump's sessions, and the connections to peers by number."""

    def __init__(
        self, settings: PumpSettings, handler: Handler, ports: RelayPorts[Any], *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._handler = handler
        self._ports = ports
        self._loop = loop
        self._relays: dict[int, dict[Family, _Relay]] = {}
        self._by_advertised: dict[Address, _Relay] = {}
        self._by_host: dict[Address, _Relay] = {}
        self._connections: dict[int, _Connection] = {}
        self._of_session: dict[int, set[int]] = {}
        self.configure(settings)

    def __len__(self) -> int:
        """Connections."""
        return len(self._connections)

    def __contains__(self, session: int) -> bool:
        return session in self._relays

    @property
    def opened(self) -> Iterable[OpenedPort[ListeningSocket]]:
        return [relay.opened for relays in self._relays.values() for relay in relays.values()]

    def configure(self, settings: PumpSettings) -> None:
        """Take from where relays are advertised elsewhere than where they are."""
        moved = [relay for relay in settings.relay_addresses if relay.host != relay.advertised]
        self._inside = {without_zone(relay.advertised): without_zone(relay.host) for relay in moved}
        self._outside = {inside: outside for outside, inside in self._inside.items()}

    # Sessions

    def open(self, request: OpenRelay) -> Opened:
        """Listen for the peers of a session that is not open yet."""
        relays: dict[Family, _Relay] = {}
        failures: dict[Family, RelayFailure] = {}
        for family in request.families:
            opened = self._ports.open_as(ListeningSocket, family, request.five_tuple.server.host)
            if isinstance(opened, RelayFailure):
                failures[family] = opened
            else:
                relays[family] = _Relay(request.allocation, opened)
        if relays:
            self._relays[request.allocation] = relays
        for relay in relays.values():
            self._by_advertised[relay.opened.advertised] = relay
            self._by_host[relay.opened.socket.address] = relay
            self._loop.add_reader(relay.opened.socket.socket, self._accept, relay)
        return Opened(tuple(relay.opened.advertised for relay in relays.values()), failures)

    def close(self, session: int, family: Family | None = None) -> None:
        """End a session's relays and connections, or those of one family."""
        for number in list(self._of_session.get(session, ())):
            if family is None or self._connections[number].family is family:
                self.disconnect(number)
        relays = self._relays.get(session, {})
        for each in [family] if family is not None else list(relays):
            relay = relays.pop(each, None)
            if relay is not None:
                self._close(relay)
        if not relays:
            self._relays.pop(session, None)

    def shutdown(self) -> None:
        for session in list(self._relays):
            self.close(session)

    def _close(self, relay: _Relay) -> None:
        if relay.pause is not None:
            relay.pause.cancel()
        self._loop.remove_reader(relay.opened.socket.socket)
        del self._by_advertised[relay.opened.advertised]
        del self._by_host[relay.opened.socket.address]
        self._ports.close(relay.opened)

    # Peers that connect

    def _accept(self, relay: _Relay) -> None:
        for _ in range(_BATCH):
            try:
                connected, peer = relay.opened.socket.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._wait(relay, error)
                    return
                continue  # the peer was gone before it was accepted
            self._accepted(relay, connected, Address(without_zone(peer[0]), peer[1]))
            if relay.opened.socket.socket.fileno() < 0:
                return

    def _accepted(self, relay: _Relay, connected: socket.socket, peer: Address) -> None:
        """Ask the Handler, by each name that the peer has behind one-to-one NAT."""
        is_inside = peer in self._by_host
        for host in dict.fromkeys((self._outside.get(peer.host, peer.host), peer.host)):
            number = self._handler.peer_arrived(relay.session, Address(host, peer.port), is_inside)
            if number is not None and relay.session in self._relays:
                connected.setblocking(False)
                self._keep(number, _Connection(relay.session, peer.family, connected))
                return
        _reset(connected)

    def _wait(self, relay: _Relay, error: OSError) -> None:
        _log.error("no peer can be accepted", reason=error.strerror, hint="raise the limit of open files")
        self._loop.remove_reader(relay.opened.socket.socket)
        relay.pause = self._loop.call_later(_PAUSE, self._accept_again, relay)

    def _accept_again(self, relay: _Relay) -> None:
        relay.pause = None
        self._loop.add_reader(relay.opened.socket.socket, self._accept, relay)

    # Peers that are connected to

    def connect(self, request: ConnectPeer) -> None:
        """As Pump.connect()."""
        connection = _Connection(request.allocation, request.peer.family, None)
        self._keep(request.connection, connection)
        relay = self._relays.get(request.allocation, {}).get(request.peer.family)
        inside = self._by_advertised.get(request.peer)
        if relay is None or inside is relay:
            self._fail(request.connection)
        elif inside is None and request.inside:
            self._fail(request.connection, forbidden=True)
        else:
            to = inside.opened.socket.address if inside is not None else self._behind(request.peer)
            self._begin(request.connection, connection, relay.opened.socket.address, to)

    def _behind(self, peer: Address) -> Address:
        return Address(self._inside.get(peer.host, peer.host), peer.port)

    def _begin(self, number: int, connection: _Connection, own: Address, peer: Address) -> None:
        try:
            connecting = connection.socket = _stream_socket(own.family)
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            connecting.bind(socket_address(own))
            failure = connecting.connect_ex(socket_address(peer))
        except OSError:
            self._fail(number)
            return
        if failure not in (0, errno.EINPROGRESS):
            self._fail(number)
            return
        connection.is_connecting = True
        self._loop.add_writer(connecting, self._connected, number, connecting)

    def _connected(self, number: int, connecting: socket.socket) -> None:
        self._loop.remove_writer(connecting)
        self._connections[number].is_connecting = False
        if connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.disconnect(number)
            self._handler.peer_failed(number, False)
        else:
            self._handler.peer_connected(number)

    def _fail(self, number: int, *, forbidden: bool = False) -> None:
        """Tell the Handler, once it has done what it is at."""
        self._loop.call_soon(self._tell_failure, number, forbidden)

    def _tell_failure(self, number: int, forbidden: bool) -> None:
        if number in self._connections:
            self.disconnect(number)
            self._handler.peer_failed(number, forbidden)

    # Connections

    def _keep(self, number: int, connection: _Connection) -> None:
        self._connections[number] = connection
        self._of_session.setdefault(connection.session, set()).add(number)

    def join_attached(self, number: int, join: Joiner | None, count: Count) -> None:
        """Join a connection with one that asyncio serves; where either is gone, end the other.

        count: as Splice has it.
        """
        peer = self.take(number)
        if peer is None or join is None:
            if peer is not None:
                _reset(peer)
            client = join(_Nobody()) if join is not None else None
            if client is not None:
                client.abort()
            self.disconnect(number)
            return
        splice = Splice(peer, count, lambda: self.disconnect(number), loop=self._loop)
        client = join(splice)
        if client is None:
            _reset(peer)
            self.disconnect(number)
            return
        self.joined(number, splice.close)
        splice.begin(client)

    def take(self, number: int) -> socket.socket | None:
        """The socket of a connection that is there and not joined yet; it is the caller's, who calls joined() then."""
        connection = self._connections.get(number)
        if connection is None or connection.is_connecting or connection.socket is None:
            return None
        taken, connection.socket = connection.socket, None
        return taken

    def joined(self, number: int, end: Callable[[], object]) -> None:
        """What ends a connection that was taken. It is still counted, until disconnect()."""
        self._connections[number].end = end

    def disconnect(self, number: int) -> None:
        """End a connection in any stage; unknown ones are fine."""
        connection = self._connections.pop(number, None)
        if connection is None:
            return
        siblings = self._of_session[connection.session]
        siblings.discard(number)
        if not siblings:
            del self._of_session[connection.session]
        if connection.socket is not None:
            if connection.is_connecting:
                self._loop.remove_writer(connection.socket)
            _reset(connection.socket)
        if connection.end is not None:
            connection.end()


def _stream_socket(family: Family) -> socket.socket:
    """One that does not block, may have the port of connections that are over, and sends at once."""
    made = socket.socket(family.socket_family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if family is Family.IPV6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        made.close()
        raise
    return made


def _reset(connected: socket.socket) -> None:
    """Close at once, and leave nothing behind in the system that a flood could fill."""
    reset_when_closed(connected)
    connected.close()
