"""Lays out a run: allocations, peers and the ways between them; then lets the core send and count."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from turnsvr.client.credentials import Login
from turnsvr.client.load_drive import StreamConnection, UdpSessions, udp_socket
from turnsvr.client.load_session import LoadError, TurnSession
from turnsvr.client.load_tls import functions
from turnsvr.client.load_values import (
    TAG_SIZE,
    Direction,
    Framing,
    Load,
    LoadCounts,
    Receiver,
    Sender,
    Shape,
    Wrap,
)
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import COOKIE_BYTES

try:
    from turnsvr.client._load import exchange

    CORE = "compiled"
except ImportError:
    from turnsvr.client.load_plain import exchange

    CORE = "plain"

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_DROPS = 8
_MEMINFO = struct.Struct("=9I")
_BUFFER = 16 * 1024 * 1024
_MOST_PEERS = 16
_BINDING_REQUEST = b"\x00\x01\x00\x00" + COOKIE_BYTES

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class OfferedTraffic:
    """What is relayed: flows at once, each with an allocation of its own; size in bytes of payload."""

    direction: Direction = Direction.UP
    flows: int = 1
    shape: Shape = Shape.SINGLES
    size: int = 1000
    wrap: Wrap = Wrap.CHANNEL
    transport: Transport = Transport.UDP

    def load(self, rate: float, seconds: float, *, kernel_times: bool = False) -> Load:
        return Load(
            size=self.size,
            rate=rate,
            seconds=seconds,
            burst=self.shape.packets,
            segments=self.shape is Shape.TRAINS and not self._sends_on_stream,
            kernel_times=kernel_times,
        )

    @property
    def _sends_on_stream(self) -> bool:
        return self.is_connected and self.direction is Direction.UP

    @property
    def is_connected(self) -> bool:
        """Whether messages go through a connection, or a DTLS association, one in each call."""
        return self.transport is not Transport.UDP


class Flows:
    """Senders and receivers that are ready, and the sockets they need; a context manager that ends the allocations."""

    def __init__(self) -> None:
        self.senders: list[Sender] = []
        self.receivers: list[Receiver] = []
        self._sockets: list[socket.socket] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, load: Load) -> LoadCounts:
        """One run, under a number of its own."""
        tls = functions() if any(s.tls for s in self.senders) or any(r.tls for r in self.receivers) else None
        dropped, own, began = self._overrun(), time.thread_time(), time.monotonic()
        counts = exchange(self.senders, self.receivers, replace(load, run=secrets.randbits(16)), tls)
        busy = (time.thread_time() - own) / (time.monotonic() - began)
        return replace(counts, overrun=self._overrun() - dropped, busy=busy)

    def _overrun(self) -> int:
        return sum(_drops(sock) for sock in self._sockets)

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close the UDP socket at the end; until then it has a large buffer and its drops count."""
        self._stack.callback(sock.close)
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
                break
        self._sockets.append(sock)
        return sock

    def at_end(self, action: Callable[[], object]) -> None:
        """Run the action when the flows end, before what was asked for earlier."""

        def quietly() -> None:
            with suppress(OSError):
                action()

        self._stack.callback(quietly)


def relay_flows(
    server: Address, login: Login, traffic: OfferedTraffic, *, peer_host: str, progress: Progress = lambda count: None
) -> Flows:
    """Allocations and peers for this traffic; peers are sockets at peer_host, which the server must be able to reach.

    Raises LoadError when the server refuses, OSError when it cannot be reached. progress: called with 1 for each flow.
    """
    if traffic.transport is Transport.DTLS and traffic.size % 4 and traffic.wrap is Wrap.CHANNEL:
        raise LoadError("over DTLS this takes sizes that are a multiple of four, for ChannelData has no padding there")
    flows = Flows()
    try:
        peers = [flows.keep(udp_socket(local=peer_host)) for _ in range(min(traffic.flows, _MOST_PEERS))]
        for number in range(traffic.flows):
            # Neighbouring flows share a peer, so that its packets to them can leave in one call.
            peer = peers[number * len(peers) // traffic.flows]
            session, client, tls = (_over_connection if traffic.is_connected else _over_udp)(
                flows, server, traffic.transport, partial(TurnSession, login, _name(peer))
            )
            _lay_out(flows, traffic, session, client, tls, peer)
            progress(1)
        if traffic.direction is Direction.UP:
            flows.receivers += [Receiver(peer.fileno()) for peer in peers]
    except BaseException:
        flows.__exit__()
        raise
    return flows


def _over_udp(
    flows: Flows, server: Address, _transport: Transport, make: Callable[[], TurnSession]
) -> tuple[TurnSession, socket.socket, int]:
    ((session, client),) = UdpSessions(server, make).open(1)
    flows.keep(client)
    flows.at_end(lambda: client.send(session.finish()))
    return session, client, 0


def _over_connection(
    flows: Flows, server: Address, transport: Transport, make: Callable[[], TurnSession]
) -> tuple[TurnSession, socket.socket, int]:
    connection = StreamConnection(server, transport)
    if transport is Transport.DTLS:
        flows.keep(connection.socket)
    flows.at_end(connection.close)
    session = make()
    connection.run(session)
    connection.release()
    return session, connection.socket, connection.tls


def _lay_out(
    flows: Flows, traffic: OfferedTraffic, session: TurnSession, client: socket.socket, tls: int, peer: socket.socket
) -> None:
    stream = traffic.is_connected
    if traffic.direction is Direction.UP:
        prefix = session.data_prefix(traffic.size, indication=traffic.wrap is Wrap.INDICATION)
        flows.senders.append(Sender(client.fileno(), prefix, stream=stream, tls=tls))
        return
    if session.relayed is None:
        raise LoadError("the server allocated no relayed transport address")
    flows.senders.append(Sender(peer.fileno(), to=(session.relayed.host, session.relayed.port)))
    flows.receivers.append(Receiver(client.fileno(), Framing.CLIENT, stream=stream, tls=tls))


def binding_flows(server: Address, count: int) -> Flows:
    """Clients that send Binding requests and count the answers; the tag is the transaction id."""
    flows = Flows()
    for _ in range(count):
        client = flows.keep(udp_socket(server))
        flows.senders.append(Sender(client.fileno(), _BINDING_REQUEST))
        flows.receivers.append(Receiver(client.fileno(), Framing.BINDING))
    return flows


def binding_load(rate: float, seconds: float, *, kernel_times: bool = False) -> Load:
    return Load(size=TAG_SIZE, rate=rate, seconds=seconds, kernel_times=kernel_times)


def _name(sock: socket.socket) -> Address:
    name = sock.getsockname()
    return Address(str(name[0]), int(name[1]))


def _drops(sock: socket.socket) -> int:
    try:
        return int(_MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS])
    except (OSError, struct.error):
        return 0
