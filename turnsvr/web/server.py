"""Serves the HTTP application in the running event loop: sockets, TLS whose certificate may change, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import structlog
import uvicorn

from turnsvr.config.websettings import WebListen, WebSettings
from turnsvr.net.tls import CertificateError, TlsContexts, TlsFiles
from turnsvr.web import FIXED, WebError
from turnsvr.web.application import Web
from turnsvr.web.context import Context
from turnsvr.web.middleware import AsgiApp, Receive, Scope, Send

_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_KEEP_ALIVE = 15
"""Seconds that an idle HTTP connection stays."""
_HEAD_SECONDS = 10.0
"""Seconds within which a new connection brings its first request."""
_GRACE = 2
"""Seconds that requests may take to end when the server stops."""
_CERTIFICATE_SECONDS = 60.0
_MAX_HEADER_BYTES = 16_384

_log = structlog.get_logger()


class Server:
    """HTTP on the listeners that the settings name."""

    def __init__(self, settings: WebSettings, context: Context) -> None:
        self.listening: tuple[WebListen, ...] = ()
        self._settings = settings
        self._context = context
        self._own_tls: TlsContexts | None = None
        self._servers: list[_Uvicorn] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._web: Web | None = None

    async def start(self) -> None:
        """Raises WebError, and then nothing is left open."""
        self._own_tls = _own_tls(self._settings)
        opened = _open(self._settings.listeners())
        try:
            tls = self._front_context() if any(each.scheme == "https" for each, _ in opened) else None
        except WebError:
            _close(opened)
            raise
        self.listening = tuple(_bound(each, opened_socket) for each, opened_socket in opened)
        self._web = web = Web(self._settings, self._context, listening=lambda: self.listening)
        for scheme, context in (("http", None), ("https", tls)):
            sockets = [opened_socket for each, opened_socket in opened if each.scheme == scheme]
            if sockets:
                server = _Uvicorn(_configuration(self._settings, self._answer, context))
                self._servers.append(server)
                self._tasks.append(asyncio.create_task(server.serve(sockets)))
        for server in self._servers:
            await server.ready.wait()
        if web.signalling is not None:
            self._tasks.append(asyncio.create_task(web.signalling.sweep()))
        if self._own_tls is not None:
            self._tasks.append(asyncio.create_task(self._watch_certificate()))
        _log.info("serving HTTP", listen=",".join(map(str, self.listening)))

    def reload(self, settings: WebSettings) -> WebSettings:
        """Go by other settings, but for those of FIXED; rooms and connections live on. Returns those in use."""
        kept = {name: getattr(self._settings, name) for name in FIXED}
        self._settings = settings.model_copy(update=kept)
        self._web = Web(self._settings, self._context, listening=lambda: self.listening, predecessor=self._web)
        return self._settings

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._web is not None:
            await self._web.asgi(scope, receive, send)

    async def stop(self) -> None:
        """Stopping twice is fine."""
        if self._web is not None and self._web.signalling is not None:
            await self._web.signalling.stop()
        for server in self._servers:
            server.should_exit = True
        for task in self._tasks[len(self._servers) :]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers, self._tasks, self.listening, self._web = [], [], (), None

    def reload_certificate(self) -> None:
        """Take the web's own certificate into use if its files have changed."""
        try:
            if self._own_tls is not None and self._own_tls.reload_if_changed():
                _log.info("web certificate reloaded")
        except CertificateError as error:
            _log.error("web certificate not reloaded", reason=str(error))

    async def _watch_certificate(self) -> None:
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            self.reload_certificate()

    def _current(self) -> ssl.SSLContext | None:
        return self._own_tls.current if self._own_tls is not None else self._context.tls_context()

    def _front_context(self) -> ssl.SSLContext:
        """A context that gives every new connection the certificate of the moment; raises WebError."""
        if self._current() is None:
            raise WebError("web.listen: https:// needs a certificate; add web.tls or tls: {certificate: …, key: …}")

        def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            connection.context = self._current() or context

        front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        front.minimum_version = ssl.TLSVersion.TLSv1_2
        front.set_alpn_protocols(["http/1.1"])
        front.sni_callback = choose
        return front


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


def _configuration(settings: WebSettings, application: AsgiApp, tls: ssl.SSLContext | None) -> uvicorn.Config:
    message_size = settings.signalling.message_size if settings.signalling else _MAX_HEADER_BYTES
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
        limit_concurrency=settings.connections,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )


def _own_tls(settings: WebSettings) -> TlsContexts | None:
    if settings.tls is None:
        return None
    try:
        return TlsContexts.of(TlsFiles(settings.tls.certificate, settings.tls.key))
    except CertificateError as error:
        raise WebError(f"web.tls: {error}") from None


def _open(addresses: tuple[WebListen, ...]) -> list[tuple[WebListen, socket.socket]]:
    """Bound sockets; an optional one whose family the host lacks is left out. Raises WebError."""
    opened: list[tuple[WebListen, socket.socket]] = []
    for address in addresses:
        try:
            opened.append((address, _listen(address)))
        except OSError as error:
            if address.optional and error.errno in _NO_SUCH_FAMILY:
                continue
            _close(opened)
            raise WebError(f"web.listen: {address}: {_reason(address, error)}") from None
    if not opened:
        raise WebError("web.listen: this host has no address of that family; name one of its own")
    return opened


def _listen(address: WebListen) -> socket.socket:
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


def _close(opened: list[tuple[WebListen, socket.socket]]) -> None:
    for _, each in opened:
        each.close()


def _bound(address: WebListen, opened: socket.socket) -> WebListen:
    return WebListen(address.scheme, address.host, opened.getsockname()[1])


def _reason(address: WebListen, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {address.port}/tcp is in use; stop what serves there, or name another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not serve on port {address.port}; name a port from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this host has no address {address.host}; name one of its own, or *"
    return f"cannot be opened: {error.strerror}"
