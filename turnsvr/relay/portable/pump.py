"""The pump in plain Python: the reference that the compiled one is measured against, and what serves without it.

Every packet takes one path: a socket is readable, the packet is read, the table says whether it is covered, it leaves
or is dropped with its reason. What goes up waits for its turn (waiting.py), and so does what may not overtake it.

A packet that stays inside the pump, from relay to relay, counts as relayed from one session's client and as
relayed to (or dropped before) the other's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Literal

from turnsvr.limits import ANSWERS_SAVED, AnswerLimiter, Answers
from turnsvr.plane import Challenge, OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.relay.api import (
    Counters,
    Drop,
    Handler,
    Opened,
    PumpSettings,
    RelayFailure,
    StreamWriter,
    TlsHandshake,
    Totals,
)
from turnsvr.relay.portable.messages import (
    BINDING_REQUEST,
    MAX_DATA,
    SEND_INDICATION,
    TransactionIds,
    binding_success,
    data_indication,
    is_possible_message,
    parse_send_indication,
)
from turnsvr.relay.portable.sessions import Channel, HostAndPort, Relay, Session, Tally
from turnsvr.relay.portable.sockets import BindingAnswer, Listener, RelaySocket, open_listener
from turnsvr.relay.portable.waiting import Key, Queued, Waiting, WaitingClient
from turnsvr.relay.ports import RandomNumbers, RelayPorts
from turnsvr.relay.sockets import wildcard, without_zone
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.framing import pack_channel_data

_PACKETS_A_WAKE_UP = 64
"""Packets read from one socket before the loop may turn to another."""

_MESSAGES_AT_ONCE = 32
_TURN = 0.002
"""Messages handed to the Handler together, and seconds of such calls before the loop's other work has its turn."""


class _Wait(Enum):
    """Whether what a client sends stays behind a message that is yet to be judged."""

    NO = "it goes its way"
    FOR_TABLE = "the table does not cover it yet"
    BEHIND = "it would overtake other data"
    FOR_RULES = "it is for the rules"


class PortablePump:
    """A Pump on an asyncio loop that has add_reader."""

    name = "portable"
    takes_tls = False

    def __init__(
        self,
        settings: PumpSettings,
        handler: Handler,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
        limiter: Answers | None = None,
    ) -> None:
        """random(n) gives n unpredictable bytes. limiter: one whose rate is somebody else's to set."""
        self._settings = settings
        self._handler = handler
        self._loop = loop
        self._clock = clock
        self._limiter_is_ours = limiter is None
        self._limiter = limiter or AnswerLimiter(settings.answers_per_address, saved=ANSWERS_SAVED)
        self._ports = RelayPorts(settings, RandomNumbers(random).below, RelaySocket)
        self._know_hosts(settings)
        self._listeners: dict[HostAndPort, Listener] = {}
        self._sessions: dict[int, Session] = {}
        self._by_client: dict[Key, Session] = {}
        self._by_relayed: dict[HostAndPort, Relay] = {}
        self._writers: dict[FiveTuple, StreamWriter] = {}
        self._resumes: dict[FiveTuple, Callable[[], None]] = {}
        self._waiting = Waiting()
        self._judging: asyncio.Handle | None = None
        self._transaction_ids = TransactionIds(random)
        self._closed = False
        self._tally = Tally()

    # Listeners and clients

    def listen(self, address: Address, *, binding_suffix: bytes = b"", mapped_address: bool = False) -> Address:
        listener = open_listener(address, BindingAnswer(binding_suffix, mapped_address), self._settings.socket_buffer)
        self._listeners[listener.address] = listener
        self._loop.add_reader(listener.socket, self._read_listener, listener)
        return listener.address

    def challenge(self, listener: Address, challenge: Challenge | None) -> None:
        pass

    def send(self, five_tuple: FiveTuple, data: bytes) -> None:
        if five_tuple.transport.is_stream:
            self._write(five_tuple, data, None)
            return
        self._answer(self._listener_of(five_tuple.server), five_tuple.client, five_tuple.server, data, None)

    def attach(self, five_tuple: FiveTuple, write: StreamWriter, resume: Callable[[], None]) -> None:
        self._writers[five_tuple] = write
        self._resumes[five_tuple] = resume

    def detach(self, five_tuple: FiveTuple) -> None:
        self._writers.pop(five_tuple, None)
        self._resumes.pop(five_tuple, None)
        self._forget(five_tuple)

    def relay(self, five_tuple: FiveTuple, frames: Sequence[bytes]) -> int:
        now = self._clock()
        session = self._by_client.get(five_tuple)
        taken = 0
        for frame in frames:
            if self._waiting.of(five_tuple) is not None:
                break
            taken += 1
            self._tally.received += 1
            if not self._from_client(session, frame, now):
                self._keep(five_tuple, session, Queued(frame, True))
        return taken

    def waits(self, five_tuple: FiveTuple) -> bool:
        return self._waiting.of(five_tuple) is not None

    def hurry(self, five_tuple: FiveTuple) -> None:
        client = self._waiting.of(five_tuple)
        if client is not None and client.out is None and not self._closed:
            self._hand_over([(client, self._waiting.take_out_of_turn(client))])

    def proceed(self, five_tuple: FiveTuple) -> None:
        client = self._waiting.of(five_tuple)
        if client is not None and client.is_kept and not self._closed:
            self._go_on(client)

    def adopt(self, descriptor: int, five_tuple: FiveTuple, first: bytes, tls: TlsHandshake | None = None) -> bool:
        return False

    def hang_up(self, five_tuple: FiveTuple) -> None:
        pass

    # Sessions

    def open(self, request: OpenRelay) -> Opened:
        if request.allocation in self._sessions or request.five_tuple in self._by_client:
            raise RuntimeError(f"session {request.allocation} or its five-tuple is open already")
        if len(self._sessions) >= self._settings.max_sessions:
            return Opened((), dict.fromkeys(request.families, RelayFailure.CAPACITY))
        five_tuple = request.five_tuple
        session = Session(request.allocation, five_tuple, self._listener_of(five_tuple.server), request.deadline)
        failures = self._open_relays(request, session)
        if session.relays:
            session.limited_by_itself = request.bandwidth is not None
            session.limit(self._settings.bandwidth if request.bandwidth is None else request.bandwidth, self._clock())
            session.waiting = self._waiting.of(five_tuple)
            self._sessions[session.number] = session
            self._by_client[five_tuple] = session
            for relay in session.relays.values():
                self._by_relayed[relay.opened.advertised] = relay
                self._loop.add_reader(relay.opened.socket.socket, self._read_relay, relay)
        return Opened(tuple(relay.opened.advertised for relay in session.relays.values()), failures)

    def close(self, session: int, family: Family | None = None) -> Counters:
        entry = self._sessions.get(session)
        if entry is None:
            return Counters()
        for each in [family] if family is not None else list(entry.relays):
            relay = entry.relays.pop(each, None)
            if relay is not None:
                self._close_relay(relay)
                entry.forget(each)
        counters = entry.counters()
        if not entry.relays:
            self._tally.end(counters)
            del self._sessions[session]
            del self._by_client[entry.five_tuple]
        return counters

    def refresh(self, session: int, deadline: float) -> None:
        entry = self._sessions.get(session)
        if entry is not None:
            entry.deadline = deadline

    def permit(self, session: int, host: str, deadline: float, ports: Ports = EVERY_PORT) -> None:
        entry = self._sessions.get(session)
        if entry is not None:
            entry.permit(without_zone(host), deadline, ports, self._settings.max_permissions, self._clock())

    def bind_channel(self, session: int, channel: int, peer: Address, deadline: float) -> None:
        entry = self._sessions.get(session)
        if entry is not None:
            bound = Channel(channel, Address(without_zone(peer.host), peer.port), deadline)
            entry.bind(bound, self._settings.max_channels, self._clock())

    def release(self, token: bytes) -> None:
        self._ports.release(token)

    def send_to_peer(self, session: int, peer: Address, data: bytes, *, dont_fragment: bool) -> None:
        entry = self._sessions.get(session)
        if entry is None:
            self._drop(Drop.NO_SESSION, None)
        else:
            self._to_peer(entry, peer, data, dont_fragment, self._clock())

    def _open_relays(self, request: OpenRelay, session: Session) -> dict[Family, RelayFailure]:
        if request.claim is not None:
            held = self._ports.claim(request.claim)
            if held is None:
                return dict.fromkeys(request.families, RelayFailure.TOKEN)
            session.relays[held.socket.family] = Relay(session, held)
            return {}
        failures = {}
        server = request.five_tuple.server.host
        for family in request.families:
            opened = self._ports.open(family, server, even=request.even_port, reserve=request.reserve)
            if isinstance(opened, RelayFailure):
                failures[family] = opened
            else:
                session.relays[family] = Relay(session, opened)
        return failures

    def _close_relay(self, relay: Relay) -> None:
        self._loop.remove_reader(relay.opened.socket.socket)
        self._by_relayed.pop(relay.opened.advertised, None)
        self._ports.close(relay.opened)

    # From clients

    def _read_listener(self, listener: Listener) -> None:
        now = self._clock()
        for _ in range(_PACKETS_A_WAKE_UP):
            try:
                data, client, server = listener.receive()
            except BlockingIOError:
                break
            except OSError:
                # Windows reports here that an earlier answer was refused; the next datagram is waiting behind it.
                continue
            self._tally.received += 1
            self._tally.batches += 1
            if data.startswith(BINDING_REQUEST) and len(data) == 20:
                self._answer_binding(listener, data, client, server, now)
            else:
                self._from_udp_client(client, server, data, now)

    def _from_udp_client(self, client: HostAndPort, server: Address, data: bytes, now: float) -> None:
        """Relay, drop or keep for the rules."""
        key = (Transport.UDP, client, server, 0)
        session = self._by_client.get(key)
        waiting = session.waiting if session is not None else self._waiting.of(key)
        wait = _Wait.NO if waiting is None else self._must_wait(session, waiting, data, now)
        if wait is _Wait.FOR_TABLE and self._wait(client, server, session, Queued(data, False)):
            return
        if wait is _Wait.NO or wait is _Wait.FOR_TABLE:
            if self._from_client(session, data, now):
                return
            wait = _Wait.FOR_RULES
        if wait is _Wait.FOR_RULES and waiting is not None and waiting.has(data):
            self._tally.sent_up += 1
        elif not self._wait(client, server, session, Queued(data, wait is _Wait.FOR_RULES)):
            self._drop(Drop.OVERLOAD, session)

    def _must_wait(self, session: Session | None, waiting: WaitingClient, data: bytes, now: float) -> _Wait:
        """Data that the table covers pass unless they would overtake others: they need no judgement."""
        first = data[0] if data else 0xFF
        if first > 0x7F:
            return _Wait.NO
        if first >= 0x40:
            if len(data) < 4 or 4 + (data[2] << 8 | data[3]) > len(data):
                return _Wait.NO
            number = data[0] << 8 | data[1]
            channel = session.channels.get(number) if session is not None else None
            if channel is None or now > channel.deadline:
                return _Wait.FOR_TABLE
            peer = channel.peer
        elif not is_possible_message(data):
            return _Wait.NO
        else:
            indication = parse_send_indication(data) if session is not None and data[:2] == SEND_INDICATION else None
            if indication is None:
                return _Wait.FOR_RULES
            number, peer = 0, indication.peer
        if session is None or session.refusal(peer.host, now):
            return _Wait.FOR_TABLE
        return _Wait.BEHIND if waiting.data and _would_overtake(session, waiting, number, peer) else _Wait.NO

    def _wait(self, client: HostAndPort, server: Address, session: Session | None, queued: Queued) -> bool:
        """Keep what a UDP client sent until its turn; False when there is no room."""
        return self._keep(FiveTuple(Transport.UDP, Address(*client), server), session, queued)

    def _keep(self, five_tuple: FiveTuple, session: Session | None, queued: Queued) -> bool:
        client = self._waiting.add(five_tuple, queued, has_session=session is not None)
        if client is None:
            return False
        self._tally.sent_up += queued.is_message
        if session is not None:
            session.waiting = client
        self._judge_soon()
        return True

    # What waits for the rules

    def _judge_soon(self) -> None:
        if self._judging is None and self._waiting.is_anybody_ready and not self._closed:
            self._judging = self._loop.call_soon(self._judge)

    def _judge(self) -> None:
        self._judging = None
        ends = self._clock() + _TURN
        try:
            while not self._closed and (taken := self._waiting.take(_MESSAGES_AT_ONCE)):
                self._hand_over(taken)
                if self._clock() >= ends:
                    return
        finally:
            self._judge_soon()

    def _hand_over(self, taken: Sequence[tuple[WaitingClient, bytes]]) -> None:
        kept: Collection[FiveTuple] = ()
        try:
            kept = self._handler.client_messages([(client.five_tuple, data) for client, data in taken])
        finally:
            for client, _ in taken:
                client.is_kept = client.five_tuple in kept
            for client, _ in taken:
                if not client.is_kept and not self._closed:
                    self._go_on(client)

    def _go_on(self, client: WaitingClient) -> None:
        """The rules have judged the client's message: let go what came behind it, as far as the next one."""
        now = self._clock()
        five_tuple = client.five_tuple
        session = self._by_client.get(five_tuple)
        while client.queue:
            if not self._from_client(session, client.queue[0].data, now):
                if not client.queue[0].is_message:
                    self._waiting.turn_to_message(client)
                    self._tally.sent_up += 1
                break
            self._tally.sent_up -= self._waiting.take_first(client).is_message
        if self._waiting.judged(client):
            if session is not None:
                session.waiting = None
            if five_tuple in self._resumes:
                self._resumes[five_tuple]()
        self._judge_soon()

    def _forget(self, five_tuple: FiveTuple) -> None:
        self._waiting.forget(five_tuple)
        session = self._by_client.get(five_tuple)
        if session is not None:
            session.waiting = None

    def _answer_binding(
        self, listener: Listener, data: bytes, client: HostAndPort, server: Address, now: float
    ) -> None:
        mapped, form = Address(*client), listener.answer
        if not self._limiter.allow(mapped.packed, now):
            self._drop(Drop.RATE_LIMITED, None)
        elif self._answer(
            listener, client, server, binding_success(data, mapped, form.mapped_address, form.suffix), None
        ):
            self._tally.binding_answers += 1

    def _from_client(self, session: Session | None, data: bytes, now: float) -> bool:
        """Relay or drop what a client sent; False when the rules must look at it."""
        first = data[0] if data else 0xFF
        if 0x40 <= first <= 0x7F:
            self._channel_data(session, data, now)
            return True
        if first > 0x7F or not is_possible_message(data):
            self._drop(Drop.MALFORMED, session)
            return True
        if data[:2] != SEND_INDICATION or session is None or now > session.deadline:
            return False
        indication = parse_send_indication(data)
        if indication is None:
            return False
        self._to_peer(session, indication.peer, indication.data, indication.dont_fragment, now)
        return True

    def _channel_data(self, session: Session | None, frame: bytes, now: float) -> None:
        end = 4 + (frame[2] << 8 | frame[3]) if len(frame) >= 4 else 4
        if end > len(frame):
            self._drop(Drop.MALFORMED, session)
        elif session is None:
            self._drop(Drop.NO_SESSION, None)
        elif now > session.deadline:
            self._drop(Drop.EXPIRED, session)
        else:
            channel = session.channels.get(frame[0] << 8 | frame[1])
            if channel is None:
                self._drop(Drop.NO_CHANNEL, session)
            elif now > channel.deadline:
                self._drop(Drop.EXPIRED, session)
            else:
                self._to_peer(session, channel.peer, frame[4:end], False, now)

    def _to_peer(self, session: Session, peer: Address, data: bytes, dont_fragment: bool, now: float) -> None:
        host, port = peer
        size = len(data)
        refusal = session.refusal(host, now)
        if refusal is not None:
            self._drop(refusal, session)
            return
        if not port or size > MAX_DATA:
            self._drop(Drop.MALFORMED, session)
            return
        if session.from_client is not None and not session.from_client.take(size, now):
            self._drop(Drop.BANDWIDTH, session)
            return
        relay = session.relays.get(peer.family)
        inside = self._by_relayed.get(peer)
        if relay is not None and inside is not None and now <= inside.session.deadline:
            session.packets_from_client += 1
            session.bytes_from_client += size
            self._to_client(inside.session, relay.opened.advertised, data, now)
        elif not self._covers(session, peer):
            self._drop(Drop.FENCED, session)
        elif relay is not None and self._send_from(relay, self._behind(session, peer), data, dont_fragment):
            session.packets_from_client += 1
            session.bytes_from_client += size
        else:
            self._drop(Drop.SEND_FAILED, session)

    def _covers(self, session: Session, peer: Address) -> bool:
        """Whether the permission covers the peer's port; the Handler hears of the first that it does not."""
        permission = session.permissions[peer.host]
        if permission.covers(peer.port):
            return True
        if not permission.told and not self._closed:
            permission.told = True
            self._handler.peer_fenced(session.number, peer)
        return False

    def _know_hosts(self, settings: PumpSettings) -> None:
        """Where relays are advertised elsewhere than where they are."""
        relays = [relay for relay in settings.relay_addresses if relay.host != relay.advertised]
        self._inside = {without_zone(relay.advertised): without_zone(relay.host) for relay in relays}
        self._outside = {inside: outside for outside, inside in self._inside.items()}

    def _behind(self, session: Session, peer: Address) -> Address:
        """Where packets for this peer go."""
        inside = self._inside.get(peer.host)
        if inside is not None or peer.host in self._outside:
            session.call(peer)
        return peer if inside is None else Address(inside, peer.port)

    def _known_as(self, session: Session, peer: HostAndPort, now: float) -> HostAndPort:
        """The name by which the session's client knows whom a packet has come from."""
        outside = self._outside.get(peer[0])
        return peer if outside is None else session.known_as(peer, outside, now)

    def _send_from(self, relay: Relay, peer: Address, data: bytes, dont_fragment: bool) -> bool:
        relay_socket = relay.opened.socket
        self._tally.sends += 1
        try:
            relay_socket.send(data, peer, dont_fragment)
        except BlockingIOError:
            return False
        except OSError:
            # It may be an ICMP error that came for an earlier packet, which the kernel reports in the place of sending.
            self._report_errors(relay)
            self._tally.sends += 1
            try:
                relay_socket.send(data, peer, dont_fragment)
            except OSError:
                return False
        self._tally.segments += 1
        return True

    # From peers

    def _read_relay(self, relay: Relay) -> None:
        now = self._clock()
        session, relay_socket = relay.session, relay.opened.socket
        for count in range(_PACKETS_A_WAKE_UP):
            try:
                data, peer = relay_socket.receive()
            except OSError as error:
                if not (count and isinstance(error, BlockingIOError)):
                    # Woken without data, or in place of data: by an ICMP error. Data behind it wakes the loop again.
                    self._report_errors(relay)
                return
            self._tally.received += 1
            self._tally.batches += 1
            self._from_peer(session, self._known_as(session, peer, now), data, now)

    def _from_peer(self, session: Session, peer: HostAndPort, data: bytes, now: float) -> None:
        """What has come over the network: from a port that the permission covers, or not at all."""
        permission = session.permissions.get(peer[0])
        if permission is not None and not permission.covers(peer[1]) and session.refusal(peer[0], now) is None:
            self._drop(Drop.NO_PERMISSION, session)
        else:
            self._to_client(session, peer, data, now)

    def _report_errors(self, relay: Relay) -> None:
        session, now = relay.session, self._clock()
        for error in relay.opened.socket.errors(_PACKETS_A_WAKE_UP):
            peer = Address(*self._known_as(session, error.peer, now))
            if session.refusal(peer.host, now) is None and not self._closed:
                self._handler.peer_error(session.number, peer, *error[1:])

    def _to_client(self, session: Session, peer: HostAndPort, data: bytes, now: float) -> None:
        size = len(data)
        refusal = session.refusal(peer[0], now)
        if refusal is not None:
            self._drop(refusal, session)
            return
        if not peer[1]:
            self._drop(Drop.MALFORMED, session)
            return
        if session.to_client is not None and not session.to_client.take(size, now):
            self._drop(Drop.BANDWIDTH, session)
            return
        channel = session.channels_by_peer.get(peer)
        try:
            if channel is not None and now <= channel.deadline:
                frame = pack_channel_data(channel.number, data, padded=session.is_stream)
            else:
                frame = data_indication(next(self._transaction_ids), Address(*peer), data)
        except ValueError:
            self._drop(Drop.SEND_FAILED, session)
            return
        five_tuple = session.five_tuple
        if session.is_stream:
            sent = self._write(five_tuple, frame, session)
        else:
            sent = self._answer(session.listener, five_tuple.client, five_tuple.server, frame, session)
        if sent:
            session.packets_to_client += 1
            session.bytes_to_client += size

    def _write(self, five_tuple: FiveTuple, frame: bytes, session: Session | None) -> bool:
        write = self._writers.get(five_tuple)
        if write is None:
            return self._drop(Drop.SEND_FAILED, session)
        return write(frame) or self._drop(Drop.SLOW_CLIENT, session)

    def _answer(
        self, listener: Listener | None, client: HostAndPort, server: Address, data: bytes, session: Session | None
    ) -> bool:
        if listener is None:
            return self._drop(Drop.SEND_FAILED, session)
        self._tally.sends += 1
        try:
            listener.send(data, client, server)
        except OSError:
            return self._drop(Drop.SEND_FAILED, session)
        self._tally.segments += 1
        return True

    def _listener_of(self, server: Address) -> Listener | None:
        return self._listeners.get(server) or self._listeners.get((wildcard(server.family), server.port))

    # Figures, and the end

    def _drop(self, reason: Drop, session: Session | None) -> Literal[False]:
        self._tally.drops[reason] += 1
        if session is not None:
            session.dropped += 1
        return False

    def counters(self, session: int) -> Counters:
        entry = self._sessions.get(session)
        return entry.counters() if entry is not None else Counters()

    def totals(self) -> Totals:
        return self._tally.totals([session.counters() for session in self._sessions.values()], self._waiting.messages)

    def reconfigure(self, settings: PumpSettings) -> None:
        now = self._clock()
        if settings.bandwidth != self._settings.bandwidth:
            for session in self._sessions.values():
                if not session.limited_by_itself:
                    session.limit(settings.bandwidth, now)
        if self._limiter_is_ours and settings.answers_per_address != self._settings.answers_per_address:
            self._limiter = AnswerLimiter(settings.answers_per_address, saved=ANSWERS_SAVED)
        self._settings = settings
        self._know_hosts(settings)
        self._ports.configure(settings, [relay.opened for relay in self._by_relayed.values()])

    def shutdown(self) -> None:
        self._closed = True
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None
        for session in list(self._sessions):
            self.close(session)
        for listener in self._listeners.values():
            self._loop.remove_reader(listener.socket)
            listener.socket.close()
        self._listeners.clear()
        self._writers.clear()
        self._resumes.clear()
        self._ports.shutdown()


def _would_overtake(session: Session, waiting: WaitingClient, number: int, peer: Address) -> bool:
    """Whether data for this peer wait, or on this channel."""
    for data, is_message in waiting.queue:
        if is_message:
            continue
        if data[0] >= 0x40:
            other = data[0] << 8 | data[1]
            channel = session.channels.get(other)
            if other == number or (channel is not None and channel.peer == peer):
                return True
        else:
            indication = parse_send_indication(data)
            if indication is not None and indication.peer == peer:
                return True
    return False
