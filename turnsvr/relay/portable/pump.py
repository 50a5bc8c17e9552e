"""The pump in plain Python: the reference that the compiled one is measured against, and what serves without it.

Every packet takes one way: a socket is readable and the packet is read here; order.py says whether it must wait;
path.py finds out whose it is, whether it may pass and where to; out.py sends it, or counts it with its reason.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence

from turnsvr.limits import ANSWERS_SAVED, AnswerLimit, AnswerLimiter
from turnsvr.plane import Challenge, ConnectPeer, OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.relay.api import (
    MAX_OBSERVED,
    NO_DTLS,
    Handler,
    Opened,
    PumpSettings,
    RelayFailure,
    StreamWriter,
    TlsContext,
    TlsHandshake,
)
from turnsvr.relay.counts import Associations, Counters, Drop, Totals
from turnsvr.relay.joining import Joiner
from turnsvr.relay.portable.group import open_group
from turnsvr.relay.portable.messages import BINDING_REQUEST, binding_success
from turnsvr.relay.portable.order import Order
from turnsvr.relay.portable.out import Out
from turnsvr.relay.portable.path import Path
from turnsvr.relay.portable.sessions import Channel, HostAndPort, Relay, Session
from turnsvr.relay.portable.sockets import BindingAnswer, RelaySocket, UdpListener, serve_listener
from turnsvr.relay.portable.table import Table
from turnsvr.relay.ports import RandomNumbers, RelayPorts
from turnsvr.relay.sockets import without_zone
from turnsvr.relay.tcprelay import TcpRelays
from turnsvr.stun.address import Address, Family, FiveTuple

_PACKETS_A_WAKE_UP = 64
"""Packets read from one socket before the loop may turn to another."""


class PortablePump:
    """A Pump on an asyncio loop that has add_reader."""

    name = "portable"
    takes_tls = False
    takes_dtls = False

    def __init__(
        self,
        settings: PumpSettings,
        handler: Handler,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
        limiter: AnswerLimit | None = None,
        is_armed: bool = True,
    ) -> None:
        """random(n) gives n unpredictable bytes. limiter: one whose rate the caller sets; a new one without it.

        is_armed: else no socket of its own is read.
        """
        self._is_armed = is_armed
        self._groups: dict[Address, list[UdpListener]] = {}
        """Every socket at the address of a listener."""
        self._settings = settings
        self._loop = loop
        self._clock = clock
        self._limiter_is_ours = limiter is None
        self._limiter = limiter or AnswerLimiter(settings.answers_per_address, saved=ANSWERS_SAVED)
        self._ports = RelayPorts(settings, RandomNumbers(random).below, RelaySocket)
        self._table = Table(self._ports)
        self._out = Out()
        self._path = Path(self._table, self._out, handler, random)
        self._path.configure(settings)
        self._order = Order(self._table, self._path, self._out, handler, loop=loop, clock=clock)
        self._tcp = TcpRelays(settings, handler, self._ports, loop=loop)
        self._joiners: dict[FiveTuple, Joiner] = {}
        self._observed: frozenset[str] = frozenset()
        """Clients, by IP address, whose Binding requests the Handler sees."""

    # Listeners and clients

    def listen(
        self,
        address: Address,
        *,
        binding_suffix: bytes = b"",
        mapped_address: bool = False,
        dtls: bool = False,
        descriptors: Sequence[int] = (),
    ) -> Address:
        if dtls:
            raise ValueError(NO_DTLS)
        answer = BindingAnswer(binding_suffix, mapped_address)
        if descriptors:
            group = [serve_listener(descriptor, address, answer) for descriptor in descriptors]
        else:
            group = open_group(address, answer, self._settings.socket_buffer)
        bound = group[0].address
        self._out.listeners[bound] = group[0]
        self._groups[bound] = group
        self._watch_listeners(group)
        return bound

    def secure(self, context: TlsContext) -> None:
        raise ValueError(NO_DTLS)

    def challenge(self, listener: Address, challenge: Challenge | None) -> None:
        pass

    def observe(self, hosts: Sequence[str]) -> None:
        if len(hosts) > MAX_OBSERVED:
            raise ValueError(f"{len(hosts)} hosts are more than {MAX_OBSERVED}")
        self._observed = frozenset(hosts)

    def tell(self, session: int, wanted: bool) -> None:
        found = self._table.sessions.get(session)
        if found is not None:
            found.is_observed = wanted

    def send(self, five_tuple: FiveTuple, data: bytes) -> None:
        self._out.send(five_tuple, data)

    def attach(
        self, five_tuple: FiveTuple, write: StreamWriter, resume: Callable[[], None], join: Joiner | None = None
    ) -> None:
        self._out.writers[five_tuple] = write
        if join is not None:
            self._joiners[five_tuple] = join
        self._order.resumes[five_tuple] = resume

    def detach(self, five_tuple: FiveTuple) -> None:
        self._out.writers.pop(five_tuple, None)
        self._order.resumes.pop(five_tuple, None)
        self._joiners.pop(five_tuple, None)
        self._order.forget(five_tuple)

    def relay(self, five_tuple: FiveTuple, frames: Sequence[bytes]) -> int:
        return self._order.from_stream(five_tuple, frames)

    def waits(self, five_tuple: FiveTuple) -> bool:
        return self._order.waiting.of(five_tuple) is not None

    def hurry(self, five_tuple: FiveTuple) -> None:
        self._order.hurry(five_tuple)

    def proceed(self, five_tuple: FiveTuple) -> None:
        self._order.proceed(five_tuple)

    def adopt(self, descriptor: int, five_tuple: FiveTuple, first: bytes, tls: TlsHandshake | None = None) -> bool:
        return False

    def hang_up(self, five_tuple: FiveTuple) -> None:
        pass

    # Sessions

    def open(self, request: OpenRelay) -> Opened:
        if request.tcp:
            return self._open_for_tcp(request)
        five_tuple = request.five_tuple
        listener = self._out.listener_of(five_tuple.server)
        session, failures = self._table.open(request, listener, self._settings.max_sessions)
        if session.relays:
            self._prepare(session, request)
            self._watch_relays(session)
        return Opened(tuple(relay.opened.advertised for relay in session.relays.values()), failures)

    def _open_for_tcp(self, request: OpenRelay) -> Opened:
        session = self._table.new_session(request, None)
        if len(self._table.sessions) >= self._settings.max_sessions:
            return Opened((), dict.fromkeys(request.families, RelayFailure.CAPACITY))
        opened = self._tcp.open(request)
        if opened.addresses:
            self._prepare(session, request)
            self._table.enter(session)
        return opened

    def _prepare(self, session: Session, request: OpenRelay) -> None:
        session.limited_by_itself = request.bandwidth is not None
        session.limit(self._settings.bandwidth if request.bandwidth is None else request.bandwidth, self._clock())
        session.waiting = self._order.waiting.of(request.five_tuple)

    def close(self, session: int, family: Family | None = None) -> Counters:
        entry = self._table.sessions.get(session)
        if entry is None:
            return Counters()
        if session in self._tcp:
            self._tcp.close(session, family)
            if session not in self._tcp:
                self._table.leave(entry)
                self._out.counts.end(entry.counters())
            return entry.counters()
        for relay in [relay for each, relay in entry.relays.items() if family in (None, each)]:
            self._loop.remove_reader(relay.opened.socket.socket)
            self._table.close_relay(entry, relay)
        counters = entry.counters()
        if not entry.relays:
            self._out.counts.end(counters)
        return counters

    def refresh(self, session: int, deadline: float) -> None:
        entry = self._table.sessions.get(session)
        if entry is not None:
            entry.deadline = deadline

    def permit(self, session: int, host: str, deadline: float, ports: Ports = EVERY_PORT) -> None:
        entry = self._table.sessions.get(session)
        if entry is not None:
            entry.permit(without_zone(host), deadline, ports, self._settings.max_permissions, self._clock())

    def bind_channel(self, session: int, channel: int, peer: Address, deadline: float) -> None:
        entry = self._table.sessions.get(session)
        if entry is not None:
            bound = Channel(channel, Address(without_zone(peer.host), peer.port), deadline)
            entry.bind(bound, self._settings.max_channels, self._clock())

    def expect(self, five_tuple: FiveTuple, expected: bool) -> None:
        if expected:
            self._table.expected.add(five_tuple)
        else:
            self._table.expected.discard(five_tuple)

    def move(self, session: int, five_tuple: FiveTuple) -> None:
        self._table.expected.discard(five_tuple)
        entry = self._table.sessions.get(session)
        if entry is not None:
            self._table.move(entry, five_tuple, self._out.listener_of(five_tuple.server))
            entry.waiting = self._order.waiting.of(five_tuple)

    def release(self, token: bytes) -> None:
        self._ports.release(token)

    def send_to_peer(self, session: int, peer: Address, data: bytes, *, dont_fragment: bool) -> None:
        entry = self._table.sessions.get(session)
        if entry is None:
            self._out.drop(Drop.NO_SESSION, None)
        else:
            self._path.to_peer(entry, peer, data, dont_fragment, self._clock())

    # Connections to peers

    def connect(self, request: ConnectPeer) -> None:
        self._tcp.connect(request)

    def join(self, connection: int, session: int, five_tuple: FiveTuple) -> None:
        entry = self._table.sessions[session]

        def count(size: int, from_client: bool) -> float | None:
            self._out.counts.received += 1
            self._out.counts.batches += 1
            return entry.move(size, from_client, self._clock())

        self._tcp.join_attached(connection, self._joiners.get(five_tuple), count)

    def disconnect(self, connection: int) -> None:
        self._tcp.disconnect(connection)

    # Sockets

    def _watch_listeners(self, group: Iterable[UdpListener]) -> None:
        for listener in group if self._is_armed else ():
            self._loop.add_reader(listener.socket, self._read_listener, listener)

    def _watch_relays(self, session: Session) -> None:
        for relay in session.relays.values() if self._is_armed else ():
            self._loop.add_reader(relay.opened.socket.socket, self._read_relay, relay)

    def _read_listener(self, listener: UdpListener) -> None:
        now = self._clock()
        for _ in range(_PACKETS_A_WAKE_UP):
            try:
                data, client, server = listener.receive()
            except BlockingIOError:
                break
            except OSError:
                # Windows reports here that an earlier answer was refused; the next datagram is waiting behind it.
                continue
            self._out.counts.received += 1
            self._out.counts.batches += 1
            if data.startswith(BINDING_REQUEST) and len(data) == 20 and client[0] not in self._observed:
                self._answer_binding(listener, data, client, server, now)
            else:
                self._order.from_udp_client(client, server, data, now)

    def _answer_binding(
        self, listener: UdpListener, data: bytes, client: HostAndPort, server: Address, now: float
    ) -> None:
        mapped, form = Address(*client), listener.answer
        if not self._limiter.allow(mapped.packed, now):
            self._out.drop(Drop.RATE_LIMITED, None)
        elif self._out.answer(
            listener, client, server, binding_success(data, mapped, form.mapped_address, form.suffix), None
        ):
            self._out.counts.binding_answers += 1

    def _read_relay(self, relay: Relay) -> None:
        now = self._clock()
        session, relay_socket = relay.session, relay.opened.socket
        for count in range(_PACKETS_A_WAKE_UP):
            try:
                data, peer = relay_socket.receive()
            except OSError as error:
                if not (count and isinstance(error, BlockingIOError)):
                    # Woken without data, or in place of data: by an ICMP error. Data behind it wakes the loop again.
                    self._path.report_errors(relay, now)
                return
            self._out.counts.received += 1
            self._out.counts.batches += 1
            self._path.from_peer(session, peer, data, now)

    # Figures, settings, and the end

    def counters(self, session: int) -> Counters:
        entry = self._table.sessions.get(session)
        return entry.counters() if entry is not None else Counters()

    def totals(self) -> Totals:
        return self._out.counts.totals(
            [session.counters() for session in self._table.sessions.values()], self._order.waiting.messages
        )

    def associations(self) -> Associations:
        return Associations()

    def reconfigure(self, settings: PumpSettings) -> None:
        now = self._clock()
        if settings.bandwidth != self._settings.bandwidth:
            for session in self._table.sessions.values():
                if not session.limited_by_itself:
                    session.limit(settings.bandwidth, now)
        if self._limiter_is_ours and settings.answers_per_address != self._settings.answers_per_address:
            self._limiter = AnswerLimiter(settings.answers_per_address, saved=ANSWERS_SAVED)
        self._settings = settings
        self._path.configure(settings)
        self._tcp.configure(settings)
        datagrams = [relay.opened for relay in self._table.by_relayed.values()]
        self._ports.configure(settings, [*datagrams, *self._tcp.opened])

    def shutdown(self) -> None:
        self._path.is_closed = True
        self._order.close()
        for session in list(self._table.sessions):
            self.close(session)
        self._tcp.shutdown()
        for group in self._groups.values():
            for listener in group:
                self._loop.remove_reader(listener.socket)
                listener.socket.close()
        self._groups.clear()
        self._out.listeners.clear()
        self._out.writers.clear()
        self._ports.shutdown()
