"""HTTP in the running event loop, for whoever has an ASGI application: listeners, TLS, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import uvicorn

from turnsvr.config.websettings import WebListen
from turnsvr.web.middleware import AsgiApp

_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_KEEP_ALIVE = 15
"""Seconds that an idle HTTP connection stays."""
_HEAD_SECONDS = 10.0
"""Seconds within which a new connection brings its first request."""
_GRACE = 1
"""Seconds that requests may take to end when the server stops."""
_MAX_HEADER_BYTES = 16_384
SMALL_MESSAGE = 16_384
"""Bytes of a WebSocket message, where there is no use for any."""

Opened = tuple[WebListen, socket.socket]
"""A listener and its bound socket."""


class ListenFailed(Exception):
    """A listener that cannot be opened: which, and what to do about it, in one line."""


class HttpServers:
    """HTTP servers that start and stop together."""

    def __init__(self) -> None:
        self._servers: list[_Uvicorn] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(
        self,
        sockets: Sequence[socket.socket],
        application: AsgiApp,
        *,
        connections: int,
        tls: ssl.SSLContext | None = None,
        message_size: int = SMALL_MESSAGE,
    ) -> None:
        """Serve on bound sockets, which close with stop(); with tls all of them speak it.

        More than so many connections get 503; message_size bounds a WebSocket message, in bytes.
        """
        server = _Uvicorn(_configuration(application, connections, tls, message_size))
        self._servers.append(server)
        self._tasks.append(asyncio.create_task(server.serve(list(sockets))))
        await server.ready.wait()

    async def stop(self) -> None:
        """Stopping twice is fine."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers, self._tasks = [], []


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process it lives in, and tells when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._silent: dict[Any, float] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def on_tick(self, counter: int) -> bool:
        self._drop_silent(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _drop_silent(self, now: float) -> None:
        """Close connections that have not brought a whole request head in time, which uvicorn waits for for ever."""
        silent = [each for each in self.server_state.connections if getattr(each, "cycle", self) is None]
        self._silent = {each: self._silent.get(each, now) for each in silent}
        for each, since in self._silent.items():
            if now >= since + _HEAD_SECONDS:
                each.transport.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _configuration(
    application: AsgiApp, connections: int, tls: ssl.SSLContext | None, message_size: int
) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        interface="asgi3",
        http="h11",
        ws="websockets-sansio",
        ws_max_size=message_size,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=connections,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )


def changing_context(current: Callable[[], ssl.SSLContext | None]) -> ssl.SSLContext:
    """A context that gives every new connection the certificate of the moment."""

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = current() or context

    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.minimum_version = ssl.TLSVersion.TLSv1_2
    front.set_alpn_protocols(["http/1.1"])
    front.sni_callback = choose
    return front


def open_listeners(addresses: Iterable[WebListen]) -> list[Opened]:
    """Bound sockets, each with where it is; an optional one whose family the host lacks is left out.

    Raises ListenFailed, and then nothing is left open.
    """
    opened: list[Opened] = []
    for address in addresses:
        try:
            bound = _bind(address)
        except OSError as error:
            if address.optional and error.errno in _NO_SUCH_FAMILY:
                continue
            close_all(opened)
            raise ListenFailed(f"{address}: {_reason(address, error)}") from None
        opened.append((WebListen(address.scheme, address.host, bound.getsockname()[1]), bound))
    if not opened:
        raise ListenFailed("this host has no address of that family; name one of its own")
    return opened


def close_all(opened: Iterable[Opened]) -> None:
    for _, each in opened:
        each.close()


def _bind(address: WebListen) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address.host, address.port))
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _reason(address: WebListen, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {address.port}/tcp is in use; stop what serves there, or name another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not serve on port {address.port}; name a port from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this host has no address {address.host}; name one of its own, or *"
    return f"cannot be opened: {error.strerror}"
