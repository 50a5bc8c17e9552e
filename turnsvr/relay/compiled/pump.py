"""The compiled pump as a Pump: packets are moved by turnsvr.relay.compiled._pump.

One thread for each lane runs without the GIL.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Thread
from typing import Any, cast

import structlog

from turnsvr.plane import Challenge, ConnectPeer, OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.relay.api import (
    NO_DTLS,
    Handler,
    Opened,
    PumpSettings,
    RelayFailure,
    StreamWriter,
    TlsContext,
    TlsHandshake,
)
from turnsvr.relay.compiled import tls as tls_room
from turnsvr.relay.compiled._pump import AnswerBudget, MovingEngine
from turnsvr.relay.compiled.lanereader import LaneReader
from turnsvr.relay.compiled.sockets import EngineSocket, PumpSockets
from turnsvr.relay.counts import Associations, Counters, Drop, Totals
from turnsvr.relay.joining import Joiner
from turnsvr.relay.ports import OpenedPort, RandomNumbers, RelayPorts
from turnsvr.relay.tcprelay import TcpRelays
from turnsvr.stun.address import Address, Family, FiveTuple

_log = structlog.get_logger()


class CompiledPump:
    """A Pump on an asyncio loop that has add_reader."""

    name = "compiled"

    def __init__(
        self,
        settings: PumpSettings,
        handler: Handler,
        *,
        loop: asyncio.AbstractEventLoop,
        limiter: AnswerBudget | None = None,
        is_armed: bool = True,
    ) -> None:
        """limiter: a budget of answers that others spend as well. is_armed: else arm() begins to serve."""
        limiter = limiter or AnswerBudget(settings.answers_per_address)
        self.takes_tls = self.takes_dtls = not tls_room.missing()
        self._settings = settings
        self._handler = handler
        self._loop = loop
        self._closed = False
        self._groups: dict[Address, list[socket.socket]] = {}
        self._relays: dict[int, list[OpenedPort[EngineSocket]]] = {}
        self._sockets = PumpSockets(settings)
        if settings.gso and not self._sockets.segmentation:
            _log.warning("packets are sent one by one", reason="the kernel has no UDP_SEGMENT")
        self._ports = RelayPorts(settings, RandomNumbers().below, self._sockets.open_relay)
        self._tcp = TcpRelays(settings, handler, self._ports, loop=loop)
        self._joiners: dict[FiveTuple, Joiner] = {}
        self._joined: dict[FiveTuple, int] = {}
        """Connections to peers by the adopted one that they are joined with."""
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._engine = MovingEngine(settings.threads, event, limiter)
        self._reader = LaneReader(self._engine, event, handler, loop, self._peer_is_over)
        self._configure_engine(settings)
        self._threads: list[Thread] = []
        if is_armed:
            self._start()

    def _start(self) -> None:
        """Have packets served from here on; once is enough."""
        if self._threads:
            return
        self._reader.start()
        self._threads += [
            Thread(target=self._engine.run, args=(lane,), name=f"turnsvr-pump-{lane}", daemon=True)
            for lane in range(self._settings.threads)
        ]
        for thread in self._threads:
            thread.start()

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
        if dtls and not self.takes_dtls:
            raise ValueError(NO_DTLS)
        lanes = self._settings.threads
        if descriptors:
            sockets = self._sockets.take_listeners(address, descriptors)
        else:
            sockets = self._sockets.open_listeners(address)
        bound = Address(address.host, sockets[0].getsockname()[1])
        self._groups[bound] = sockets
        for at, each in enumerate(sockets):
            self._engine.add_listener(at % lanes, each.fileno(), bound, binding_suffix, mapped_address, dtls)
        for lane in range(len(sockets), lanes):
            self._engine.share_listener(lane, sockets[lane % len(sockets)].fileno(), bound)
        return bound

    def secure(self, context: TlsContext) -> None:
        if not self.takes_dtls:
            raise ValueError(NO_DTLS)
        self._engine.secure(cast(Any, context))

    def challenge(self, listener: Address, challenge: Challenge | None) -> None:
        self._engine.challenge(listener, challenge)

    def observe(self, hosts: Sequence[str]) -> None:
        self._engine.observe(hosts)

    def tell(self, session: int, wanted: bool) -> None:
        self._engine.tell(session, wanted)

    def send(self, five_tuple: FiveTuple, data: bytes) -> None:
        self._engine.send(five_tuple, data)

    def attach(
        self, five_tuple: FiveTuple, write: StreamWriter, resume: Callable[[], None], join: Joiner | None = None
    ) -> None:
        if join is not None:
            self._joiners[five_tuple] = join
        self._reader.resumes[five_tuple] = resume
        self._engine.attach(five_tuple, write)

    def detach(self, five_tuple: FiveTuple) -> None:
        self._reader.resumes.pop(five_tuple, None)
        self._joiners.pop(five_tuple, None)
        self._engine.detach(five_tuple)

    def relay(self, five_tuple: FiveTuple, frames: Sequence[bytes]) -> int:
        return self._engine.relay(five_tuple, frames)

    def waits(self, five_tuple: FiveTuple) -> bool:
        return self._engine.waits(five_tuple)

    def hurry(self, five_tuple: FiveTuple) -> None:
        self._reader.hurry(five_tuple)

    def proceed(self, five_tuple: FiveTuple) -> None:
        self._reader.proceed(five_tuple)

    def adopt(self, descriptor: int, five_tuple: FiveTuple, first: bytes, tls: TlsHandshake | None = None) -> bool:
        if self._engine.hang_up(five_tuple):
            self._handler.stream_closed(five_tuple, "another connection took its place")
        try:
            self._engine.adopt(descriptor, five_tuple, first, cast(Any, tls))
        except OSError:
            return False
        return True

    def hang_up(self, five_tuple: FiveTuple) -> None:
        self._engine.hang_up(five_tuple)

    # Sessions

    def open(self, request: OpenRelay) -> Opened:
        if len(self._engine) >= self._settings.max_sessions:
            return Opened((), dict.fromkeys(request.families, RelayFailure.CAPACITY))
        if request.tcp:
            return self._open_for_tcp(request)
        relays, failures = self._open_relays(request)
        if relays:
            try:
                self._engine.open(
                    request.allocation,
                    request.five_tuple,
                    request.deadline,
                    [(relay.socket.descriptor, relay.socket.address, relay.advertised) for relay in relays],
                    request.bandwidth,
                )
            except BaseException as error:
                self._close_relays(relays)
                if isinstance(error, OSError):
                    return Opened((), dict.fromkeys(request.families, RelayFailure.CAPACITY))
                raise
            self._relays[request.allocation] = relays
        return Opened(tuple([relay.advertised for relay in relays]), failures)

    def _open_for_tcp(self, request: OpenRelay) -> Opened:
        """A session whose sockets the engine does not know, but for connections that are joined."""
        self._engine.open(request.allocation, request.five_tuple, request.deadline, [], request.bandwidth)
        opened = self._tcp.open(request)
        if opened.addresses:
            self._relays[request.allocation] = []
        else:
            self._engine.close(request.allocation, 0)
        return opened

    def close(self, session: int, family: Family | None = None) -> Counters:
        if session in self._tcp:
            self._tcp.close(session, family)
            if session in self._tcp:
                return self.counters(session)
            family = None
        fields = self._engine.close(session, family or 0)
        if fields is None:
            return Counters()
        relays = self._relays.pop(session)
        ended = [relay for relay in relays if family is None or relay.socket.address.family is family]
        self._close_relays(ended)
        if len(ended) < len(relays):
            self._relays[session] = [relay for relay in relays if relay not in ended]
        return Counters(*fields)

    def refresh(self, session: int, deadline: float) -> None:
        self._engine.refresh(session, deadline)

    def permit(self, session: int, host: str, deadline: float, ports: Ports = EVERY_PORT) -> None:
        self._engine.permit(session, host, deadline, ports, self._settings.max_permissions)

    def bind_channel(self, session: int, channel: int, peer: Address, deadline: float) -> None:
        self._engine.bind_channel(session, channel, peer, deadline, self._settings.max_channels)

    def expect(self, five_tuple: FiveTuple, expected: bool) -> None:
        self._engine.expect(five_tuple, expected)

    def move(self, session: int, five_tuple: FiveTuple) -> None:
        self._engine.move(session, five_tuple)

    def release(self, token: bytes) -> None:
        self._ports.release(token)

    def send_to_peer(self, session: int, peer: Address, data: bytes, *, dont_fragment: bool) -> None:
        self._engine.send_to_peer(session, peer, data, dont_fragment)

    def _open_relays(self, request: OpenRelay) -> tuple[list[OpenedPort[EngineSocket]], dict[Family, RelayFailure]]:
        if request.claim is not None:
            held = self._ports.claim(request.claim)
            return ([], dict.fromkeys(request.families, RelayFailure.TOKEN)) if held is None else ([held], {})
        relays, failures = [], {}
        server = request.five_tuple.server.host
        for family in request.families:
            opened = self._ports.open(family, server, even=request.even_port, reserve=request.reserve)
            if isinstance(opened, RelayFailure):
                failures[family] = opened
            else:
                relays.append(opened)
        return relays, failures

    def _close_relays(self, relays: Iterable[OpenedPort[EngineSocket]]) -> None:
        for relay in relays:
            self._ports.close(relay)

    # Connections to peers

    def connect(self, request: ConnectPeer) -> None:
        self._tcp.connect(request)

    def join(self, connection: int, session: int, five_tuple: FiveTuple) -> None:
        if five_tuple in self._joiners:
            count = partial(self._engine.count_bytes, session)
            self._tcp.join_attached(connection, self._joiners[five_tuple], count)
            return
        peer = self._tcp.take(connection)
        if peer is not None and self._engine.join(session, five_tuple, peer.fileno()):
            peer.detach()
            self._joined[five_tuple] = connection
            self._tcp.joined(connection, partial(self._part, five_tuple))
            return
        if peer is not None:
            peer.close()
        self._tcp.disconnect(connection)
        self._part(five_tuple)

    def disconnect(self, connection: int) -> None:
        self._tcp.disconnect(connection)

    def _part(self, five_tuple: FiveTuple) -> None:
        """End both ends of an adopted connection, for the one to its peer is over."""
        self._joined.pop(five_tuple, None)
        if self._engine.hang_up(five_tuple) and not self._closed:
            self._handler.stream_closed(five_tuple, "the connection to its peer is over")

    def _peer_is_over(self, five_tuple: FiveTuple) -> None:
        """End the connection to a peer that is joined with this adopted one, if there is one."""
        self._tcp.disconnect(self._joined.pop(five_tuple, -1))

    # Figures, and the end

    def counters(self, session: int) -> Counters:
        fields = self._engine.counters(session)
        return Counters() if fields is None else Counters(*fields)

    def totals(self) -> Totals:
        relayed, drops, *others = self._engine.totals()
        return Totals(Counters(*relayed), dict(zip(Drop, drops, strict=True)), *others)

    def associations(self) -> Associations:
        return Associations(*self._engine.associations())

    def reconfigure(self, settings: PumpSettings) -> None:
        self._settings = self._sockets.settings = settings
        self._configure_engine(settings)
        self._tcp.configure(settings)
        datagrams = [relay for relays in self._relays.values() for relay in relays]
        self._ports.configure(settings, [*datagrams, *self._tcp.opened])

    def shutdown(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._engine.release()  # a handler may end the pump, and what it sent is to leave
        self._reader.stop()
        self._engine.stop()
        for thread in self._threads:
            thread.join()
        for session in list(self._relays):
            self.close(session)
        self._tcp.shutdown()
        self._engine.shutdown()
        for group in self._groups.values():
            for listener in group:
                listener.close()
        self._ports.shutdown()
        self._reader.close()

    def _configure_engine(self, settings: PumpSettings) -> None:
        self._engine.configure(
            settings.bandwidth,
            settings.answers_per_address,
            settings.gso and self._sockets.segmentation,
            settings.busy_poll,
            settings.stream_buffer,
            [(each.host, each.advertised) for each in settings.relay_addresses if each.host != each.advertised],
            settings.associations,
            settings.associations_per_address,
            settings.idle_timeout,
            settings.handshake_timeout,
        )
