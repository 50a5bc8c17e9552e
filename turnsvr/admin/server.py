"""Serves the admin interface: a Unix socket whose permissions are the guard, and TCP listeners behind a token."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import structlog

from turnsvr.admin import CONNECTIONS, AdminError, handover
from turnsvr.admin.application import application
from turnsvr.admin.context import AdminContext
from turnsvr.admin.guard import Guard
from turnsvr.admin.places import places
from turnsvr.admin.rates import Rates
from turnsvr.admin.unixsocket import Taken, UnixListener
from turnsvr.config.adminsettings import AdminSettings
from turnsvr.web import serving
from turnsvr.web.connections import HttpConnections, HttpLimits
from turnsvr.web.listeners import BoundListener, Inherited, ListenFailed, open_listeners

_UNIX_LIMITS = HttpLimits(connections=CONNECTIONS // 2, per_address=CONNECTIONS // 2)
_TCP_LIMITS = HttpLimits(connections=CONNECTIONS // 2, per_address=CONNECTIONS // 4)
"""A bound of their own, so that callers without the token do not keep out those who may use the socket."""

_log = structlog.get_logger()


class AdminServer:
    """The admin interface, where the settings want it."""

    def __init__(self, settings: AdminSettings, context: AdminContext, environ: Mapping[str, str] = os.environ) -> None:
        self.listening: tuple[str, ...] = ()
        self._settings = settings
        self._context = context
        self._environ = environ
        self._rates = Rates(context)
        self._descriptors: Inherited = {}
        self._succeeds = False
        self._servers = serving.HttpServers()
        self._unix: UnixListener | None = None

    def descriptors(self) -> Inherited:
        """Of the TCP listeners, for another process that goes on with them."""
        return dict(self._descriptors)

    def replace(self) -> None:
        """Take the place of the server that this one succeeds."""
        try:
            if self._unix is not None:
                self._unix.replace()
        except OSError as error:
            _log.error("no admin socket", socket=str(self._unix.path if self._unix else ""), reason=_reason(error))

    async def start(self, inherited: Inherited | None = None) -> None:
        """Raises AdminError, and then nothing is left open; where `auto` finds no place the log says why.

        inherited: TCP sockets of the server that this one succeeds, whose Unix socket stays until replace().
        """
        self._succeeds = inherited is not None
        self._unix = self._open_unix(self._settings.socket)
        try:
            tls = self._tls_context() if any(each.scheme == "https" for each in self._settings.listen) else None
            listeners = self._open_tcp(inherited)
        except ListenFailed as error:
            self._close_unix()
            raise AdminError(f"admin.listen: {error}") from None
        app = application(self._context, self._rates, local=True)
        guarded = Guard(application(self._context, self._rates), lambda: self._context.token)
        loop = asyncio.get_running_loop()
        if self._unix is not None:
            connections = HttpConnections(_UNIX_LIMITS, loop)
            await self._servers.start([self._unix.socket], app, connections, others=self._others())
        connections = HttpConnections(_TCP_LIMITS, loop)
        for scheme, context in (("http", None), ("https", tls)):
            if sockets := [each for listener, each in listeners if listener.scheme == scheme]:
                await self._servers.start(sockets, guarded, connections, tls=context)
        unix = () if self._unix is None else (str(self._unix.path),)
        self.listening = (*unix, *(str(listener) for listener, _ in listeners))

    async def stop(self) -> None:
        """Stopping twice is fine."""
        if self._unix is not None:
            self._unix.remove()
            self._unix = None
        await self._servers.stop()
        self._rates.forget()
        self.listening = ()

    def _others(self) -> serving.OtherProtocols:
        """Who comes over the Unix socket and speaks no HTTP."""
        return {handover.PREFACE: self._context.hand_over}

    def _open_tcp(self, inherited: Inherited | None) -> list[BoundListener]:
        """Raises ListenFailed."""
        if not self._settings.listen:
            return []
        named = (each for named in self._settings.listen for each in named.expand())
        opened = open_listeners(named, inherited)
        self._descriptors = {(each.host, each.port): bound.fileno() for each, bound in opened}
        return opened

    def _tls_context(self) -> ssl.SSLContext:
        if self._context.tls_context() is None:
            raise ListenFailed("https:// needs a certificate; add tls: {certificate: …, key: …}")
        return serving.changing_context(self._context.tls_context)

    def _open_unix(self, wanted: Literal["auto", "off"] | Path) -> UnixListener | None:
        """Raises AdminError where the settings name a path that cannot be opened."""
        if isinstance(wanted, Path):
            try:
                return UnixListener(wanted, succeeds=self._succeeds)
            except Taken:
                raise AdminError(f"admin.socket: another server listens on {wanted}; name another path") from None
            except OSError as error:
                raise AdminError(f"admin.socket: {wanted}: {_reason(error)}") from None
        return self._open_somewhere() if wanted == "auto" else None

    def _open_somewhere(self) -> UnixListener | None:
        """The first place that can be opened; none where another server has it, lest a command reach the wrong one."""
        for place in places(self._environ):
            if not _directory_for(place):
                continue
            try:
                return UnixListener(place, succeeds=self._succeeds)
            except Taken:
                _log.info("no admin interface", reason=f"another server listens on {place}", hint="set admin.socket")
                return None
            except OSError as error:
                _log.info("no admin socket there", socket=str(place), reason=_reason(error))
        if not self._settings.listen:
            _log.info("no admin interface", reason="there is no directory for its socket", hint="set admin.socket")
        return None

    def _close_unix(self) -> None:
        if self._unix is not None:
            self._unix.remove()
            self._unix.socket.close()
            self._unix = None


def _directory_for(place: Path) -> bool:
    """Whether its directory is there, or could be made, and is ours to put a socket into."""
    directory = place.parent
    try:
        directory.mkdir(mode=0o755)
    except FileExistsError:
        return os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return False
    return True


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not put a socket there"
    if error.errno == errno.ENOENT:
        return "there is no such directory"
    return error.strerror or str(error)
