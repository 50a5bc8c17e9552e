"""HTTP in the running event loop for any ASGI application: accepting connections, TLS, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import uvicorn

from turnsvr.net.accepting import Acceptor
from turnsvr.net.proxied import HeaderWait, may_tell
from turnsvr.net.proxyheader import HeaderRefusal
from turnsvr.net.tlsturn import TlsTurn
from turnsvr.net.turns import Turns
from turnsvr.ranges import RangeSet
from turnsvr.stun.address import Address
from turnsvr.web.connections import DEADLINES, HttpConnection, HttpConnections, Phase
from turnsvr.web.middleware import AsgiApp
from turnsvr.web.protocols import HttpProtocol
from turnsvr.web.requestturns import AT_ONCE, in_turn

_DROP_SECONDS = 0.7
"""Seconds after which a connection is dropped when the server stops, whatever it waits for."""
_GRACE = 1
"""Seconds after which the requests are cancelled that go on although their connections are gone."""
_TLS_END_SECONDS = 3.0
_LONGER_THAN_OURS = 3_600
"""Seconds of uvicorn's own deadline, which never comes: the table of connections has shorter ones."""
_BACKLOG = 1_024
_BATCH = 4
"""Connections taken in one turn of the loop. Few, since what came along with one is read some turns later, and until
then the connection must not have had to make room for others."""
_HANDSHAKES = 1
"""TLS handshakes that begin in one turn of the loop; each takes about a millisecond."""
_MAX_HEADER_BYTES = 16_384

OtherProtocols = dict[bytes, Callable[[socket.socket], None]]
"""Who speaks something else than HTTP, by what they say first: they get the socket, behind that."""

Balancers = Callable[[socket.socket], RangeSet | None]
"""Those whose connections to a listening socket begin with a PROXY header now; None where clients come."""


class HttpServers:
    """HTTP servers that start and stop together."""

    def __init__(self) -> None:
        self._servers: list[_Uvicorn] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(
        self,
        sockets: Sequence[socket.socket],
        application: AsgiApp,
        connections: HttpConnections,
        *,
        tls: ssl.SSLContext | None = None,
        message_size: int | None = None,
        balancers: Balancers = lambda _: None,
        others: OtherProtocols | None = None,
    ) -> None:
        """Serve on bound sockets, which close with stop(); with tls all of them speak it.

        others: who speaks no HTTP, without TLS.

        connections may be shared with other servers; message_size bounds a WebSocket message, in bytes, and without it
        WebSocket is not spoken.
        """
        turns = Turns(asyncio.get_running_loop(), AT_ONCE)
        configuration = _configuration(_quiet_at_its_end(in_turn(application, turns)), message_size)
        server = _Uvicorn(configuration, connections, tls, balancers, others)
        self._servers.append(server)
        self._tasks.append(asyncio.create_task(server.serve(list(sockets))))
        await server.ready.wait()

    def connection(self, client: Address) -> HttpProtocol | None:
        """The protocol of one more connection, of this client, that came in elsewhere; None where it has no room."""
        return self._servers[0].connection(client) if self._servers else None

    async def stop(self) -> None:
        """Stopping twice is fine."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers, self._tasks = [], []


class _Uvicorn(uvicorn.Server):
    """Accepts by the table of connections, leaves signals to the process it lives in, and tells when it serves."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: HttpConnections,
        tls: ssl.SSLContext | None,
        balancers: Balancers,
        others: OtherProtocols | None,
    ) -> None:
        super().__init__(config)
        self._others = others or {}
        self.ready = asyncio.Event()
        self._balancers = balancers
        self._connections = connections
        self._tls = tls
        self._acceptors: list[Acceptor] = []
        self._mine: set[HttpConnection] = set()
        self._turns = Turns(asyncio.get_running_loop(), _HANDSHAKES)
        self._starting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for each in sockets or ():
            each.listen(_BACKLOG)
            self._acceptors.append(Acceptor(loop, each, partial(self._accepted, each), _BATCH))
        self.servers = []
        self.started = True
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        late = asyncio.get_running_loop().call_later(_DROP_SECONDS, self._drop_all)
        await super().shutdown()
        late.cancel()
        self._drop_all()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to end

    def connection(self, client: Address) -> HttpProtocol | None:
        """As HttpServers.connection."""
        place = None if self.should_exit else self._connections.admit(client.host)
        if place is None:
            return None
        place.client = client
        self._mine.add(place)
        place.closed = lambda: self._mine.discard(place)
        return HttpProtocol(place, self.config, self.server_state)

    def _drop_all(self) -> None:
        for connection in tuple(self._mine):
            connection.drop()

    def _accepted(self, listener: socket.socket, connected: socket.socket, peer: Any) -> None:
        host = peer[0] if isinstance(peer, tuple) else ""
        balancers = self._balancers(listener)
        connected.setblocking(False)
        if balancers is None:
            self._enter(connected, self._connections.admit(host))
        elif may_tell(host, balancers):
            self._read_header(connected, host)
        else:
            connected.close()
            self._connections.header_refusals.add(host, HeaderRefusal.UNTRUSTED)

    def _read_header(self, connected: socket.socket, host: str) -> None:
        """Have a balancer tell whose connection it is."""
        place = self._connections.admit_balancer(host)
        if place is None:
            connected.close()
            return

        def told(client: Address | None) -> None:
            place.close()
            connection = self._connections.admit(client.host if client else host)
            if connection is not None:
                connection.client = client
            self._enter(connected, connection)

        def refused(why: HeaderRefusal | None) -> None:
            place.drop()
            self._connections.header_refusals.add(host, why)

        header = HeaderWait(asyncio.get_running_loop(), connected, told=told, refused=refused)

        def drop() -> None:
            header.cancel()
            connected.close()
            place.close()

        self._mine.add(place)
        place.closed = lambda: self._mine.discard(place)
        place.drop = drop
        place.waits(Phase.PROXY)

    def _enter(self, connected: socket.socket, connection: HttpConnection | None) -> None:
        """Serve it; without a place for the connection it ends."""
        if connection is None:
            connected.close()
            return
        self._mine.add(connection)
        connection.closed = lambda: self._mine.discard(connection)
        if self._tls is not None:
            self._begin_in_turn(connected, connection)
        else:
            self._begin(connected, connection)

    def _begin_in_turn(self, connected: socket.socket, connection: HttpConnection) -> None:
        """Have TLS begin in the turn of its client: hands are shaken on the loop that serves TURN as well.

        Before the handshake nobody can tell a probe from others but by its address, so favoured ones come first.
        """
        begin = partial(self._begin, connected, connection)

        def drop() -> None:
            turn.cancel()
            connected.close()
            connection.close()

        turn = TlsTurn(
            asyncio.get_running_loop(),
            connected,
            partial(self._turns.ask, connection.source or b"", first=connection.favoured),
            seconds=DEADLINES[Phase.TLS],
            begin=begin,
            late=drop,
        )
        connection.drop = drop
        connection.waits(Phase.TLS)

    def _begin(self, connected: socket.socket, connection: HttpConnection) -> None:
        coroutine = self._serve_connection(connected, connection)
        task = asyncio.get_running_loop().create_task(coroutine)
        self._starting.add(task)

        def drop() -> None:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                connected.close()  # asyncio has not taken it yet
            task.cancel()

        def finished(task: asyncio.Task[None]) -> None:
            self._starting.discard(task)
            if task.cancelled() or task.exception() is not None:
                connection.close()

        connection.drop = drop
        connection.waits(Phase.TLS)
        task.add_done_callback(finished)

    async def _serve_connection(self, connected: socket.socket, connection: HttpConnection) -> None:
        """Hand the connection to uvicorn, after the TLS handshake where there is one; raises OSError."""

        def protocol() -> HttpProtocol:
            return HttpProtocol(connection, self.config, self.server_state)

        if self._others and (other := await self._who_else(connected)) is not None:
            connection.close()
            other(connected)
            return
        seconds = {} if self._tls is None else {"ssl_shutdown_timeout": _TLS_END_SECONDS}
        await asyncio.get_running_loop().connect_accepted_socket(protocol, connected, ssl=self._tls, **seconds)

    async def _who_else(self, connected: socket.socket) -> Callable[[socket.socket], None] | None:
        """Who takes the connection by what it says first, which is read then; None for HTTP, of which nothing is."""
        loop = asyncio.get_running_loop()
        longest = max(map(len, self._others))
        try:
            first = await _peek(loop, connected, longest)
        except BaseException:
            connected.close()
            raise
        for preface, takes in self._others.items():
            if first.startswith(preface):
                connected.recv(len(preface))
                return takes
        return None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _quiet_at_its_end(application: AsgiApp) -> AsgiApp:
    """The application; uvicorn cancels its requests at stop() alone, and is to log no trace-back of that."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await application(scope, receive, send)

    return serve


def _configuration(application: AsgiApp, message_size: int | None) -> uvicorn.Config:
    config = uvicorn.Config(
        application,
        interface="asgi3",
        http=HttpProtocol,
        ws="none" if message_size is None else _websocket_protocol(),
        ws_max_size=message_size or 0,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_LONGER_THAN_OURS,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
    )
    config.load()
    return config


def _websocket_protocol() -> type[asyncio.Protocol]:
    """Imported where WebSocket is spoken alone, for it needs a package that the admin interface does without."""
    from turnsvr.web.websocket import WebSocketProtocol

    return WebSocketProtocol


async def _peek(loop: asyncio.AbstractEventLoop, connected: socket.socket, size: int) -> bytes:
    """What a connection says first, at most so much of it, and it stays to be read. Raises OSError."""
    while True:
        try:
            return connected.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            pass
        readable = loop.create_future()
        loop.add_reader(connected, lambda: None if readable.done() else readable.set_result(None))  # noqa: B023
        try:
            await readable
        finally:
            loop.remove_reader(connected)


def changing_context(current: Callable[[], ssl.SSLContext | None]) -> ssl.SSLContext:
    """A context that gives every new connection the certificate of the moment."""

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = current() or context

    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.minimum_version = ssl.TLSVersion.TLSv1_2
    front.set_alpn_protocols(["http/1.1"])
    front.sni_callback = choose
    return front
