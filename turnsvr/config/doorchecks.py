"""Contradictions between listeners and what is said of some of them by naming them again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from turnsvr.config.dooradvice import shared
from turnsvr.config.doorsettings import OWN_WEB, Backend

if TYPE_CHECKING:
    from turnsvr.config.document import Location
    from turnsvr.config.doorsettings import ShareSettings
    from turnsvr.config.ranges import ListenAddress
    from turnsvr.config.settings import Settings

Contradiction = tuple["Location", str, str]
"""Where, what is wrong, what to do about it."""


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    if settings.proxy is not None:
        yield from _streams(settings, ("proxy",), settings.proxy.listen)
    if settings.share is not None:
        yield from _streams(settings, ("share",), settings.share.listen)
        yield from _share(settings, settings.share)
    yield from _web(settings)


def _streams(settings: Settings, section: Location, named: Collection[ListenAddress]) -> Iterator[Contradiction]:
    """Stream listeners that a section names, of which some may not be there."""
    serving = (*settings.listeners(), *settings.named_listeners())
    sockets = {(each.host, each.port) for each in serving if not each.is_datagram}
    for index, address in enumerate(named):
        where = (*section, "listen", index)
        if address.is_datagram:
            yield where, "is a UDP listener", "name TCP and TLS listeners"
        elif address.port == 0:
            yield where, "has no port, so that it names nothing", "write the port"
        elif not sockets.issuperset((each.host, each.port) for each in address.expand()):
            yield where, "is not among the listeners", f'add "{address}" to listen'


def _share(settings: Settings, share: ShareSettings) -> Iterator[Contradiction]:
    if share.http == OWN_WEB and settings.web is None:
        yield ("share", "http"), "is web, which is off", 'add "web: {}", or name another server'
    if share.http2 and (share.http is None or share.http == OWN_WEB):
        yield ("share", "http2"), "has no server behind it", "name another server in share.http, or leave it out"
    sharing = {(each.host, each.port) for each in shared(settings)}
    for where, backend in _backends(share):
        if not sharing.isdisjoint(backend.reaches()):
            yield where, "is a listener that shares: connections would go round", "name the server behind it"


def _backends(share: ShareSettings) -> Iterator[tuple[Location, Backend]]:
    if isinstance(share.http, Backend):
        yield ("share", "http"), share.http
    for name, backend in share.pass_through.items():
        yield ("share", "pass_through", name), backend


def _web(settings: Settings) -> Iterator[Contradiction]:
    web = settings.web
    if web is None or web.proxy is None:
        return
    serving = set(web.listeners())
    for index, address in enumerate(web.proxy.listen):
        if not serving.issuperset(address.expand()):
            yield ("web", "proxy", "listen", index), "is not among web.listen", f'add "{address}" to web.listen'
