"""Runs the rules: messages and times go in, and this is the one place where their commands are carried out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol, assert_never

import structlog

from turnsvr.credentials.api import Credential, Source
from turnsvr.net.lookup import Lookups
from turnsvr.net.observer import Observer
from turnsvr.plane import ConnectPeer, OpenRelay
from turnsvr.relay.api import Handler, Relayed, RelayFailure
from turnsvr.relay.counts import Counters
from turnsvr.relay.moving import MovablePump
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    BindChannel,
    CloseRelay,
    Command,
    DisconnectPeer,
    Event,
    ExpectClient,
    ExtendRelay,
    FindCredential,
    JoinPeer,
    MoveRelay,
    PeerRefused,
    Permit,
    ReleaseReservation,
    RequestRefused,
    Send,
    SendToPeer,
)
from turnsvr.turn.server import Server

_log = structlog.get_logger()

_LONGEST_WAIT = 40.0
"""Seconds after which what a client sent behind a request waits for its answer no longer. Look-ups end before."""

_CODES = {
    RelayFailure.FAMILY: ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED,
    RelayFailure.CAPACITY: ErrorCode.INSUFFICIENT_CAPACITY,
    RelayFailure.TOKEN: ErrorCode.INSUFFICIENT_CAPACITY,  # RFC 8656 section 7.2 step 6
}


class EventSink(Protocol):
    """Who is told what the rules decided: the log, metrics. Calls must not block."""

    def started(self, event: AllocationStarted) -> None: ...

    def refreshed(self, event: AllocationRefreshed) -> None: ...

    def moved(self, event: AllocationMoved) -> None: ...

    def ended(self, event: AllocationEnded, counters: Counters) -> None: ...

    def authentication_failed(self, event: AuthenticationFailed) -> None: ...

    def peer_refused(self, event: PeerRefused) -> None: ...

    def request_refused(self, event: RequestRefused) -> None: ...


class Engine:
    """The rules, the pump, the credentials and one timer, together.

    It is the pump's Handler. A fault in one message or command is logged and costs that one alone. Times are those
    of the loop's clock, which is time.monotonic().
    """

    def __init__(
        self,
        server: Server,
        make_pump: Callable[[Handler], MovablePump],
        credentials: Source,
        events: EventSink,
        *,
        loop: asyncio.AbstractEventLoop,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self.server = server
        self.lookups = Lookups(credentials, self._found, self._not_found, wall_time=wall_time)
        self.on_stream_closed: Callable[[FiveTuple], None] = lambda five_tuple: None
        """Called when a connection that the pump had adopted is gone."""
        self.observer: Observer | None = None
        """An operator's trace; usually there is none."""
        self.changed: Callable[[int], None] = lambda number: None
        """Called with the number of an allocation whose permissions, channels or relays are others."""
        self._events = events
        self._loop = loop
        self._running = False
        self._answers: list[Callable[[], None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._kept: dict[FiveTuple, asyncio.TimerHandle] = {}
        self.pump = make_pump(self)

    def client_messages(self, batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        now = self._loop.time()
        for five_tuple, data in batch:
            try:
                if self.observer is not None:
                    self.observer.received(five_tuple, data)
                self.server.receive(data, five_tuple, now)
            except Exception:
                _log.exception("a message could not be judged", client=str(five_tuple.client))
        self.carry_out()
        kept = [five_tuple for five_tuple, _ in batch if self.server.waits(five_tuple)]
        for five_tuple in kept:
            self._keep(five_tuple)
        return kept

    def stream_frames(self, five_tuple: FiveTuple, frames: Sequence[bytes]) -> int:
        """Frames of an attached stream client, for the pump to relay or to hand up; returns how many it has taken."""
        try:
            return self.pump.relay(five_tuple, frames)
        except Exception:
            _log.exception("frames could not be relayed", client=str(five_tuple.client))
            return len(frames)

    def peer_error(self, session: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes) -> None:
        try:
            self.server.peer_error(session, peer, icmp_type, icmp_code, data, self._loop.time())
        except Exception:
            _log.exception("an ICMP error could not be judged")
        self.carry_out()

    def peer_fenced(self, session: int, peer: Address) -> None:
        try:
            self.server.peer_fenced(session, peer)
        except Exception:
            _log.exception("a packet that went nowhere could not be told of")
        self.carry_out()

    def relayed(self, packet: Relayed) -> None:
        if self.observer is not None:
            self.observer.relayed(packet)

    def peer_arrived(self, session: int, peer: Address, inside: bool) -> int | None:
        number = None
        try:
            number = self.server.peer_arrived(session, peer, inside, self._loop.time())
        except Exception:
            _log.exception("a peer's connection could not be judged")
        self.carry_out()
        return number

    def peer_connected(self, connection: int) -> None:
        try:
            self.server.peer_connected(connection, self._loop.time())
        except Exception:
            _log.exception("a connection to a peer could not be told of")
        self.carry_out()

    def peer_failed(self, connection: int, forbidden: bool) -> None:
        try:
            self.server.peer_failed(connection, self._loop.time(), forbidden=forbidden)
        except Exception:
            _log.exception("a connection that failed could not be told of")
        self.carry_out()

    def stream_closed(self, five_tuple: FiveTuple, reason: str) -> None:
        _log.debug("connection closed", client=str(five_tuple.client), reason=reason)
        self.on_stream_closed(five_tuple)
        self.disconnected(five_tuple)

    def disconnected(self, five_tuple: FiveTuple) -> None:
        """A stream client is gone."""
        kept = self._kept.pop(five_tuple, None)
        if kept is not None:
            kept.cancel()
        try:
            self.server.disconnected(five_tuple, self._loop.time())
        except Exception:
            _log.exception("a disconnection could not be judged", client=str(five_tuple.client))
        self.carry_out()

    def carry_out(self) -> None:
        """Carry out what the rules want done, and what that leads to; then set the timer.

        To be called after each call into the server that did not come through this class.
        """
        if self._running:
            return  # the call further up the stack takes these commands after those it has
        self._running = True
        try:
            while commands := self.server.commands():
                self._carry_out_each(commands)
        finally:
            self._running = False
        self._set_timer()

    def freeze(self) -> None:
        """Judge nothing until thaw(): messages wait in the pump, answers to look-ups here. Deadlines count on."""
        self._answers = self._answers or []
        self.pump.freeze()

    def thaw(self) -> None:
        """Go on. Not being frozen is fine."""
        answers, self._answers = self._answers or [], None
        self.pump.thaw()
        for answer in answers:
            answer()

    def end_allocations(self) -> None:
        """End every allocation because the server stops."""
        try:
            self.server.shutdown(self._loop.time())
        except Exception:
            _log.exception("the rules did not shut down")
        self.carry_out()

    def close(self) -> None:
        """Stop the timer, the look-ups and the pump; nothing is to be called after it."""
        self.lookups.cancel()
        for kept in self._kept.values():
            kept.cancel()
        self._kept.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.pump.shutdown()

    def _carry_out_each(self, commands: Iterable[Command]) -> None:
        for command in commands:
            try:
                self._carry_out_one(command)
            except Exception:
                _log.exception("a command could not be carried out", command=type(command).__name__)
                self._answer_failure(command)

    def _carry_out_one(self, command: Command) -> None:
        pump = self.pump
        match command:
            case Send():
                self._send(command)
            case FindCredential():
                self.lookups.ask(command)
            case OpenRelay():
                self._open(command)
            case CloseRelay():
                pump.close(command.allocation, command.family)
                self.changed(command.allocation)
            case ExtendRelay():
                pump.refresh(command.allocation, command.deadline)
            case Permit():
                pump.permit(command.allocation, command.host, command.deadline, command.ports)
                self.changed(command.allocation)
            case BindChannel():
                pump.bind_channel(command.allocation, command.channel, command.peer, command.deadline)
                self.changed(command.allocation)
            case SendToPeer():
                pump.send_to_peer(command.allocation, command.peer, command.data, dont_fragment=command.dont_fragment)
            case ExpectClient() | MoveRelay() | ConnectPeer() | JoinPeer() | DisconnectPeer():
                self._steer(command)
            case ReleaseReservation():
                pump.release(command.token)
            case (
                AllocationStarted()
                | AllocationRefreshed()
                | AllocationMoved()
                | AllocationEnded()
                | AuthenticationFailed()
                | PeerRefused()
                | RequestRefused()
            ):
                self._tell(command)
            case _:
                assert_never(command)

    def _send(self, command: Send) -> None:
        if self.observer is not None:
            self.observer.sent(command.five_tuple, command.data)
        self.pump.send(command.five_tuple, command.data)

    def _steer(self, command: ExpectClient | MoveRelay | ConnectPeer | JoinPeer | DisconnectPeer) -> None:
        """Clients that move, and connections to peers."""
        match command:
            case ExpectClient():
                self.pump.expect(command.five_tuple, command.expected)
            case MoveRelay():
                self.pump.move(command.allocation, command.five_tuple)
            case ConnectPeer():
                self.pump.connect(command)
            case JoinPeer():
                self.pump.join(command.connection, command.allocation, command.five_tuple)
            case DisconnectPeer():
                self.pump.disconnect(command.connection)

    def _tell(self, event: Event) -> None:
        match event:
            case AllocationStarted():
                self._events.started(event)
            case AllocationRefreshed():
                self._events.refreshed(event)
            case AllocationMoved():
                self._events.moved(event)
            case AllocationEnded():
                self._events.ended(event, self.pump.counters(event.allocation))
            case AuthenticationFailed():
                self._events.authentication_failed(event)
            case PeerRefused():
                self._events.peer_refused(event)
            case RequestRefused():
                self._events.request_refused(event)
            case _:
                assert_never(event)

    def _open(self, command: OpenRelay) -> None:
        opened = self.pump.open(command)
        failures: dict[Family, ErrorCode] = {family: _CODES[why] for family, why in opened.failures.items()}
        now = self._loop.time()
        if opened.addresses:
            self.server.relay_opened(command.allocation, opened.addresses, failures, now)
        else:
            code = next(iter(failures.values()), ErrorCode.INSUFFICIENT_CAPACITY)
            self.server.relay_failed(command.allocation, code, now)

    def _answer_failure(self, command: Command) -> None:
        """A command that the rules wait for must be answered, also when it went wrong."""
        try:
            match command:
                case FindCredential():
                    self.server.credential_failed(command.request, self._loop.time())
                case ConnectPeer():
                    self.server.peer_failed(command.connection, self._loop.time())
                case JoinPeer():
                    self.server.disconnected(command.five_tuple, self._loop.time())
                case OpenRelay():
                    self.server.relay_failed(command.allocation, ErrorCode.INSUFFICIENT_CAPACITY, self._loop.time())
        except Exception:
            _log.exception("a failed command could not be answered", command=type(command).__name__)

    def _found(self, request: int, keys: Sequence[Credential], refusal: str) -> None:
        if self._answers is not None:
            self._answers.append(lambda: self._found(request, keys, refusal))
            return
        five_tuple = self.server.who_waits(request)
        self.server.credential(request, keys, self._loop.time(), refusal=refusal)
        self.carry_out()
        self._answered(five_tuple)

    def _not_found(self, request: int) -> None:
        if self._answers is not None:
            self._answers.append(lambda: self._not_found(request))
            return
        five_tuple = self.server.who_waits(request)
        self.server.credential_failed(request, self._loop.time())
        self.carry_out()
        self._answered(five_tuple)

    def _keep(self, five_tuple: FiveTuple) -> None:
        """Make what this client sends wait until its request is answered."""
        kept = self._kept.get(five_tuple)
        if kept is not None:
            kept.cancel()
        self._kept[five_tuple] = self._loop.call_later(_LONGEST_WAIT, self._let_go, five_tuple)

    def _answered(self, five_tuple: FiveTuple | None) -> None:
        if five_tuple is not None and five_tuple in self._kept and not self.server.waits(five_tuple):
            self._kept[five_tuple].cancel()
            self._let_go(five_tuple)

    def _let_go(self, five_tuple: FiveTuple) -> None:
        del self._kept[five_tuple]
        self.pump.proceed(five_tuple)

    def _set_timer(self) -> None:
        """Wake up no later than the rules want; an earlier wake-up that is already set stays, and sets the next."""
        when = self.server.next_timeout()
        if self._timer is not None:
            if when is not None and self._timer.when() <= when:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, self._timeout, when)

    def _timeout(self, when: float) -> None:
        self._timer = None
        try:
            # A loop may call up to its clock's resolution early.
            self.server.handle_timeout(max(when, self._loop.time()))
        except Exception:
            _log.exception("timeouts could not be handled")
        self.carry_out()
