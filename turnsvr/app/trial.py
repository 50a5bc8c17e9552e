"""What would keep a server with these settings from starting, found out without starting it.

Each part is made as Application.start() makes it, as far as that opens nothing that a running server may have open, and
what it then refuses is told in the same words.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from turnsvr import relay
from turnsvr.admin import unixsocket
from turnsvr.app import assemble, logfile
from turnsvr.app.extras import not_installed
from turnsvr.app.identities import Identities, IdentityError
from turnsvr.config import hostfacts
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.config.advice import Advice
from turnsvr.config.settings import Settings
from turnsvr.config.units import BadValue
from turnsvr.config.websettings import WebListen
from turnsvr.credentials.revoked import Revocations
from turnsvr.net import hosts
from turnsvr.net.tls import CertificateError, TlsFiles, make_context
from turnsvr.relay.counts import Counters

_LONGEST_SOCKET = 107


def obstacles(settings: Settings) -> list[Advice]:
    """One error for each part that is not available, in the order in which run meets them."""
    return [
        Advice("error", setting, text)
        for look in (_log, _tls, _identities, _pump, _status, _usage, _web, _admin)
        for setting, text in look(settings)
    ]


Problems = Iterator[tuple[str, str]]
"""Settings that cannot be served, each with why and what to do."""


def _log(settings: Settings) -> Problems:
    if settings.log.file is not None and (reason := logfile.unwritable(settings.log.file)):
        yield "log.file", f"cannot write {settings.log.file}: {reason}"


def _tls(settings: Settings) -> Problems:
    if settings.tls is None:
        return
    if settings.tls.acme is not None:
        yield from _acme(settings.tls.acme)
    if settings.tls.acme is None or settings.tls.certificate.exists():
        yield from _certificate("tls", assemble.tls_files(settings.tls))
    if refusal := assemble.refuses_dtls(settings):
        yield refusal


def _acme(settings: AcmeSettings) -> Problems:
    try:
        import_module("acme")
    except ModuleNotFoundError as error:
        yield "tls.acme", not_installed(error, "acme", "acme")
    yield from _unwritable("tls.acme.directory", settings.certificate.parent)


def _unwritable(setting: str, directory: Path) -> Problems:
    """A directory that could not be made, or not be written in."""
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield setting, f"cannot write in {place}"


def _certificate(section: str, files: TlsFiles) -> Problems:
    try:
        make_context(files)
    except CertificateError as error:
        yield section, str(error)


def _identities(settings: Settings) -> Problems:
    async def open_and_close() -> None:
        await Identities(settings, Revocations(), lambda: None).stop()

    try:
        asyncio.run(open_and_close())
    except IdentityError as error:
        setting, _, text = str(error).partition(": ")
        yield setting, text


def _pump(settings: Settings) -> Problems:
    try:
        relay.look(settings.pump.kind)
    except relay.PumpUnavailable as error:
        yield "pump.kind", f"{error}; install a C compiler and install again, or set auto"


def _status(settings: Settings) -> Problems:
    if settings.status is None:
        return
    try:
        from turnsvr.app.sessionstatus import SessionStatus

        SessionStatus(settings.status, lambda number: Counters())
    except ModuleNotFoundError as error:
        yield _missing(error, "status", "redis")
    except BadValue as error:
        yield "status.redis", f"{error.problem}; {error.hint}"


def _usage(settings: Settings) -> Problems:
    usage = settings.usage
    if usage is None:
        return
    if usage.file is not None and (reason := logfile.unwritable(usage.file)):
        yield "usage.file", f"cannot write {usage.file}: {reason}"
    if usage.url is not None:
        try:
            import_module("httpx")
        except ModuleNotFoundError as error:
            yield "usage.url", not_installed(error, "usage.url", "hook")
        yield from _unwritable("usage.spool", usage.spool)


def _web(settings: Settings) -> Problems:
    if settings.web is None:
        return
    try:
        import_module("turnsvr.web.server")
    except ModuleNotFoundError as error:
        yield _missing(error, "web", "web")
    if settings.web.tls is not None:
        yield from _certificate("web.tls", TlsFiles(settings.web.tls.certificate, settings.web.tls.key))
    yield from _absent("web.listen", settings.web.listeners())


def _admin(settings: Settings) -> Problems:
    admin = settings.admin
    if admin.listen or isinstance(admin.socket, Path):
        try:
            import_module("turnsvr.admin.server")
        except ModuleNotFoundError as error:
            yield _missing(error, "admin", "web")
    if isinstance(admin.socket, Path) and (reason := _no_socket(admin.socket)):
        yield "admin.socket", f"{admin.socket}: {reason}"
    yield from _absent("admin.listen", [each for named in admin.listen for each in named.expand()])


def _no_socket(place: Path) -> str:
    """Why no Unix socket could be there; one that is there may be the running server's."""
    if len(os.fsencode(place)) > _LONGEST_SOCKET:
        return f"the name is longer than the {_LONGEST_SOCKET} bytes that a socket's may have"
    if reason := logfile.lacks(place.parent):
        return reason
    try:
        unixsocket.check(place)
    except FileNotFoundError:
        return ""  # the service's own directory, before its first start
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _missing(error: ModuleNotFoundError, section: str, extra: str) -> tuple[str, str]:
    return section, not_installed(error, section, extra).removeprefix(f"{section}: ")


def _absent(setting: str, listeners: Iterable[WebListen]) -> Problems:
    """Listeners at addresses that this host does not have.

    A port that is taken may be the running server's, and one that this user may not serve on the service's: neither
    certainly keeps the server from starting.
    """
    named = [each for each in listeners if not each.optional]
    here = hostfacts.addresses_here(each.host for each in named)
    for each in named:
        if each.host not in here:
            yield setting, f"{each}: this host has no address {each.host}; name one of its own, or *"


def relays(settings: Settings) -> tuple[str, ...]:
    """The addresses at which this host relays where the settings name none."""
    return () if settings.stun_only or settings.relay.addresses else hosts.default_relay_addresses()
