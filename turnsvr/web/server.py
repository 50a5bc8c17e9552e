"""Serves the HTTP application on the listeners that the settings name, with a certificate that may change."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

import structlog

from turnsvr.config.ranges import AddressRange
from turnsvr.config.websettings import WebListen, WebSettings
from turnsvr.net.tls import CertificateError, TlsContexts, TlsFiles
from turnsvr.ranges import RangeSet
from turnsvr.stun.address import Address
from turnsvr.web import WebError, serving
from turnsvr.web.application import Web
from turnsvr.web.connections import HttpConnections, HttpLimits
from turnsvr.web.context import WebContext
from turnsvr.web.listeners import Inherited, ListenFailed, close_all, open_listeners
from turnsvr.web.middleware import AsgiReceive, AsgiScope, AsgiSend
from turnsvr.web.protocols import HttpProtocol

_CERTIFICATE_SECONDS = 60.0
_LOOPBACK = (AddressRange.parse("127.0.0.1"), AddressRange.parse("::1"))
"""Where probes of the host itself come from; those from elsewhere may read metrics as well, as a rule."""

_log = structlog.get_logger()


class WebServer:
    """HTTP on the listeners that the settings name."""

    def __init__(self, settings: WebSettings, context: WebContext, room: Callable[[], int]) -> None:
        """room: the connections that this process has descriptors for."""
        self.listening: tuple[WebListen, ...] = ()
        self._settings = settings
        self._context = context
        self._room = room
        self._own_tls: TlsContexts | None = None
        self._descriptors: Inherited = {}
        self._servers = serving.HttpServers()
        self._sockets: dict[socket.socket, WebListen] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._web: Web | None = None
        self._connections: HttpConnections | None = None

    @property
    def connections(self) -> int:
        """HTTP connections now."""
        return 0 if self._connections is None else len(self._connections)

    def descriptors(self) -> Inherited:
        """Of the listeners, for another process that goes on with them."""
        return dict(self._descriptors)

    async def start(self, inherited: Inherited | None = None) -> None:
        """Raises WebError, and then nothing is left open. inherited: as open_listeners() has it."""
        self._own_tls = _own_tls(self._settings)
        try:
            opened = open_listeners(self._settings.listeners(), inherited)
        except ListenFailed as error:
            raise WebError(f"web.listen: {error}") from None
        try:
            tls = self._front_context() if any(each.scheme == "https" for each, _ in opened) else None
        except WebError:
            close_all(opened)
            raise
        self.listening = tuple(each for each, _ in opened)
        self._sockets = {each: listener for listener, each in opened}
        self._descriptors = {(each.host, each.port): bound.fileno() for each, bound in opened}
        self._connections = connections = HttpConnections(self._limits(), asyncio.get_running_loop())
        self._web = web = Web(
            self._settings,
            self._context,
            connections,
            listening=lambda: self.listening,
            sessions=self._signalling_room,
        )
        signalling = self._settings.signalling
        for scheme, context in (("http", None), ("https", tls)):
            if sockets := [each for listener, each in opened if listener.scheme == scheme]:
                await self._servers.start(
                    sockets,
                    self._answer,
                    connections,
                    tls=context,
                    message_size=signalling.message_size if signalling else None,
                    balancers=self._balancers,
                )
        if web.signalling is not None:
            self._tasks.append(asyncio.create_task(web.signalling.sweep()))
        if self._own_tls is not None:
            self._tasks.append(asyncio.create_task(self._watch_certificate()))
        _log.info("serving HTTP", listen=",".join(map(str, self.listening)))

    def connection(self, client: Address) -> HttpProtocol | None:
        """The protocol of one more connection, of this client, that came in elsewhere; None where it has no room."""
        return self._servers.connection(client)

    def reload(self, settings: WebSettings) -> None:
        """Go by other settings, once started; rooms and connections live on."""
        changed = settings != self._settings
        self._settings = settings
        if self._connections is None:
            return
        self._connections.limits = self._limits()
        if not changed:
            return
        self._web = Web(
            self._settings,
            self._context,
            self._connections,
            listening=lambda: self.listening,
            sessions=self._signalling_room,
            predecessor=self._web,
        )

    async def _answer(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if self._web is not None:
            await self._web.asgi(scope, receive, send)

    async def stop(self) -> None:
        """Stopping twice is fine."""
        if self._web is not None and self._web.signalling is not None:
            await self._web.signalling.stop()
        for task in self._tasks:
            task.cancel()
        await self._servers.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks, self.listening, self._web = [], (), None
        self._descriptors.clear()

    def _balancers(self, bound: socket.socket) -> RangeSet | None:
        """Those in front of a listener; None where there is none."""
        proxy, listener = self._settings.proxy, self._sockets[bound]
        if proxy is None:
            return None
        named = {(each.scheme, each.host, each.port) for address in proxy.listen for each in address.expand()}
        is_named = any((listener.scheme, listener.host, port) in named for port in (listener.port, 0))
        return RangeSet((each.first, each.last) for each in proxy.trusted) if is_named or not named else None

    def _signalling_room(self) -> int:
        """Sessions of signalling at once; since none is ended to make room, some connections are left to others."""
        return max(1, self._limits().connections * 3 // 4)

    def _limits(self) -> HttpLimits:
        settings = self._settings
        return HttpLimits(
            connections=min(settings.connections, self._room()),
            per_address=settings.connections_per_address,
            proxies=settings.trusted_proxies,
            favoured=(*_LOOPBACK, *settings.trusted_proxies, *settings.metrics),
        )

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
        """Raises WebError."""
        if self._current() is None:
            raise WebError("web.listen: https:// needs a certificate; add web.tls or tls: {certificate: …, key: …}")
        return serving.changing_context(self._current)


def _own_tls(settings: WebSettings) -> TlsContexts | None:
    if settings.tls is None:
        return None
    try:
        return TlsContexts(TlsFiles(settings.tls.certificate, settings.tls.key), for_pump=False)
    except CertificateError as error:
        raise WebError(f"web.tls: {error}") from None
