"""TCP and TLS connections: tells TLS, plain STUN and HTTP apart, and hands each to the pump, asyncio or others."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

import structlog

from turnsvr.net.arrival import Farewell, Speech, judge, last_word
from turnsvr.net.clienthello import ClientHello
from turnsvr.net.connections import Connection, Connections, StreamLimits
from turnsvr.net.doors import Doors
from turnsvr.net.engine import Engine
from turnsvr.net.entrance import Entrance, giving_up
from turnsvr.net.handshake import Handshake
from turnsvr.net.hello import Hello
from turnsvr.net.linktransport import LinkTransport, hand_over
from turnsvr.net.proofs import NothingMore, Proofs
from turnsvr.net.sharing import Sharing
from turnsvr.net.splice import PassedConnections, SpliceLimits
from turnsvr.net.stream import Flushes, ReadBuffer, StreamProtocol
from turnsvr.net.tls import TlsContexts
from turnsvr.net.tlsturn import TlsTurn
from turnsvr.net.turns import Turns
from turnsvr.relay.api import TlsContext, TlsHandshake
from turnsvr.relay.moving import StreamRest
from turnsvr.stun.address import FiveTuple, Transport

_HANDSHAKE_TIMEOUT = 10.0
_SHUTDOWN_TIMEOUT = 5.0
"""Seconds for TLS to begin and to end."""

_log = structlog.get_logger()


class Streams(Entrance):
    """The stream listeners and the connections that came in through them."""

    def __init__(
        self,
        engine: Engine,
        limits: StreamLimits,
        tls: TlsContexts | None = None,
        *,
        loop: asyncio.AbstractEventLoop,
        proofs: Proofs | None = None,
        doors: Doors | None = None,
        splices: PassedConnections | None = None,
    ) -> None:
        """proofs: what an ACME authority may come for. doors: listeners of which there is more to say."""
        connections = Connections(limits, engine.server.serves, loop)
        super().__init__(connections, doors or {}, loop)
        self.tls = tls
        self._proofs = proofs or Proofs()
        self.splices = PassedConnections(SpliceLimits(), loop) if splices is None else splices
        """Connections that other servers have taken."""
        self.sharing = Sharing(self.splices, self._proofs)
        self._engine = engine
        self._adopted: dict[FiveTuple, Connection] = {}
        self._attached: WeakValueDictionary[FiveTuple, StreamProtocol] = WeakValueDictionary()
        self._handshakes: set[asyncio.Task[Any]] = set()
        self._turns = Turns(loop)
        self._reads = ReadBuffer()
        self._flushes = Flushes(loop)
        engine.on_stream_closed = self._adopted_closed

    def reconfigure(self, limits: StreamLimits, splices: SpliceLimits, doors: Doors) -> None:
        """Take new limits and doors; open connections stay. The buffer size holds for new connections."""
        self._connections.limits = limits
        self.splices.limits = splices
        self.splices.keep({backend for door in doors.values() for backend in door.backends})
        self._doors = doors

    def is_adopted(self, five_tuple: FiveTuple) -> bool:
        """Whether the pump serves this client's connection itself."""
        return five_tuple in self._adopted

    @property
    def pump_context(self) -> TlsContext | None:
        """What the pump serves new TLS connections with; None where it does not."""
        return self.tls.pump if self.tls is not None and self._engine.pump.takes_tls else None

    async def close(self) -> None:
        """Close the listeners and drop every connection."""
        self.stop_accepting()
        self._connections.drop_all()
        await self.sharing.close()
        await self._connections.wait_empty()

    def _arrived(self, connected: socket.socket, connection: Connection, first: bytes) -> None:
        speech, door = judge(first), connection.door
        if speech is Speech.STUN and door.tls_only:
            self._turn_away(connected, connection, speech)
        elif speech is Speech.STUN:
            five_tuple = connection.speaks(Transport.TCP)
            if not self._adopt(connected, connection, five_tuple):
                self._serve(connected, connection, five_tuple, None)
        elif speech is Speech.TLS and (door.names or (self.tls is not None and self._proofs.has_tls)):
            self._read_hello(connected, connection)
        elif speech is Speech.TLS and self.tls is not None:
            self._begin_tls(connected, connection, self.tls)
        elif self.sharing.takes(door, speech, first, tls=False):
            self._pass_on(connected, connection, self.sharing.http(door, connection.client, connection.server, first))
        else:
            self._turn_away(connected, connection, speech)

    def _begin_tls(self, connected: socket.socket, connection: Connection, tls: TlsContexts) -> None:
        five_tuple, shares = connection.speaks(Transport.TLS), connection.door.shares_tls
        context = tls.shared_pump if shares else tls.pump
        if context is not None and self._engine.pump.takes_tls:
            self._shake_hands(connected, connection, five_tuple, context)
        else:
            self._serve_in_turn(connected, connection, five_tuple, tls.shared if shares else tls.current)

    def _read_hello(self, connected: socket.socket, connection: Connection) -> None:
        """Pass on a client that asks for another server, prove a name to a certificate authority, else begin TLS."""

        def judged(asked: ClientHello) -> None:
            backend = connection.door.server_of(asked.name)
            if self._proofs.are_for(asked) and (backend is None or self._proofs.proves(asked.name)):
                five_tuple = connection.speaks(Transport.TLS)
                self._serve_in_turn(connected, connection, five_tuple, self._proofs.context, NothingMore)
            elif backend is not None:
                passed = self.sharing.passed(backend, connection.client, connection.server)
                self._pass_on(connected, connection, passed)
            elif self.tls is not None:
                self._begin_tls(connected, connection, self.tls)
            else:
                self._turn_away(connected, connection, Speech.TLS)

        connection.drop = giving_up(Hello(self._loop, connected, judged), connected, connection)

    def _pass_on(self, connected: socket.socket, connection: Connection, protocol: asyncio.BaseProtocol | None) -> None:
        """Have a protocol go on with a connection of which nothing was read yet; without one the connection ends."""
        connection.close()
        if protocol is None:
            connected.close()
            return
        passing = self._loop.connect_accepted_socket(lambda: cast(asyncio.Protocol, protocol), connected)
        task = self._loop.create_task(passing)
        self._handshakes.add(task)

        def passed(task: asyncio.Task[Any]) -> None:
            self._handshakes.discard(task)
            if not task.cancelled() and task.exception() is not None:
                connected.close()

        task.add_done_callback(passed)

    def _turn_away(
        self, connected: socket.socket, connection: Connection, speech: Speech, tls: TlsHandshake | None = None
    ) -> None:
        """Close a connection that speaks what is not served here."""
        _log.debug("connection closed", client=str(connection.client), reason=speech.value)
        word = last_word(speech)
        if tls is not None:
            tls.farewell(word)
            word = b""

        def over() -> None:
            connected.close()
            connection.close()

        connection.drop = giving_up(Farewell(self._loop, connected, word, over), connected, connection)

    def _shake_hands(
        self, connected: socket.socket, connection: Connection, five_tuple: FiveTuple, context: TlsContext
    ) -> None:
        """Begin TLS here, for the pump to go on with."""

        def done(tls: TlsHandshake, first: bytes) -> None:
            speech = judge(first, tls.protocol)
            if self._leave(connected, connection, speech, first, tls):
                return
            if speech is not Speech.STUN:
                self._turn_away(connected, connection, speech, tls)
            elif not self._adopt(connected, connection, five_tuple, first, tls):
                failed("the pump has no room")

        def failed(reason: str) -> None:
            _log.debug("TLS handshake failed", client=str(connection.client), reason=reason)
            connection.drop()

        handshake = Handshake(
            self._loop,
            connected,
            context,
            _HANDSHAKE_TIMEOUT,
            in_turn=partial(self._turns.ask, connection.key),
            done=done,
            failed=failed,
        )
        connection.drop = giving_up(handshake, connected, connection)

    def _leave(
        self, connected: socket.socket, connection: Connection, speech: Speech, first: bytes, tls: TlsHandshake
    ) -> bool:
        """Whether another protocol takes a TLS connection, over which this came first."""
        client, server, door = connection.client, connection.server, connection.door
        if speech is Speech.STUN or not self.sharing.takes(door, speech, first, tls=True, protocol=tls.protocol):
            return False
        transport = LinkTransport(self._loop, connected, tls, client, server)
        connection.close()
        hand_over(transport, self.sharing.http(door, client, server, first, tls.protocol) or NothingMore(), first)
        return True

    def _leave_asyncio(
        self, connection: Connection, transport: asyncio.Transport, speech: Speech, first: bytes
    ) -> bool:
        """The same for a transport of asyncio's."""
        client, server, door = connection.client, connection.server, connection.door
        tls = transport.get_extra_info("ssl_object")
        chosen = (tls.selected_alpn_protocol() or "") if tls is not None else ""
        if tls is None or not self.sharing.takes(door, speech, first, tls=True, protocol=chosen):
            return False
        hand_over(transport, self.sharing.http(door, client, server, first, chosen) or NothingMore(), first)
        return True

    def _adopt(
        self,
        connected: socket.socket,
        connection: Connection,
        five_tuple: FiveTuple,
        first: bytes = b"",
        tls: TlsHandshake | None = None,
    ) -> bool:
        if not self._engine.pump.adopt(connected.fileno(), five_tuple, first, tls):
            return False
        connected.detach()
        self._adopted[five_tuple] = connection

        def drop() -> None:
            self._engine.pump.hang_up(five_tuple)
            self._adopted_closed(five_tuple)
            self._engine.disconnected(five_tuple)

        connection.drop = drop
        return True

    def _adopted_closed(self, five_tuple: FiveTuple) -> None:
        connection = self._adopted.pop(five_tuple, None)
        if connection is not None:
            connection.close()

    def _serve_in_turn(
        self,
        connected: socket.socket,
        connection: Connection,
        five_tuple: FiveTuple,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol] | None = None,
    ) -> None:
        """Have asyncio begin TLS when it is this client's turn; it takes the first step at once, then."""
        begin = partial(self._serve, connected, connection, five_tuple, context, protocol)

        def late() -> None:
            reason = f"it takes longer than {_HANDSHAKE_TIMEOUT:g} s"
            _log.debug("TLS handshake failed", client=str(connection.client), reason=reason)
            connection.drop()

        in_turn = partial(self._turns.ask, connection.key)
        turn = TlsTurn(self._loop, connected, in_turn, seconds=_HANDSHAKE_TIMEOUT, begin=begin, late=late)
        connection.drop = giving_up(turn, connected, connection)

    def _serve(
        self,
        connected: socket.socket,
        connection: Connection,
        five_tuple: FiveTuple,
        context: ssl.SSLContext | None,
        protocol: Callable[[], asyncio.Protocol] | None = None,
        rest: StreamRest | None = None,
    ) -> asyncio.Task[bool]:
        """Have asyncio serve a connection; the task ends when it does.

        protocol: what speaks in place of TURN, and leaves the connection's end to be noticed here.

        rest: of a connection that another process has served until now.
        """
        coroutine = self._connect(connected, connection, five_tuple, context, protocol, rest)
        task = self._loop.create_task(coroutine)
        self._handshakes.add(task)

        def drop() -> None:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                connected.close()  # asyncio has not taken it yet
            task.cancel()

        connection.drop = drop

        def finished(task: asyncio.Task[bool]) -> None:
            self._handshakes.discard(task)
            if task.cancelled() or not task.result():
                connection.close()

        task.add_done_callback(finished)
        return task

    async def _connect(
        self,
        connected: socket.socket,
        connection: Connection,
        five_tuple: FiveTuple,
        context: ssl.SSLContext | None,
        other: Callable[[], asyncio.Protocol] | None,
        rest: StreamRest | None,
    ) -> bool:
        """Whether asyncio serves TURN on the connection now, after TLS where there is a context."""

        def protocol() -> StreamProtocol:
            limit = self._connections.limits.buffer
            others = partial(self._leave_asyncio, connection)
            made = StreamProtocol(self._engine, connection, five_tuple, self._reads, self._flushes, limit, others, rest)
            self._attached[five_tuple] = made
            return made

        try:
            if context is None:
                await self._loop.connect_accepted_socket(protocol, connected)
            else:
                await self._loop.connect_accepted_socket(
                    other or protocol,
                    connected,
                    ssl=context,
                    ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
                    ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT,
                )
        except OSError as error:  # ssl.SSLError and TimeoutError are such
            _log.debug("TLS handshake failed", client=str(connection.client), reason=_reason(error))
            return False
        return other is None


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__
