"""What is unsafe about balancers in front and servers behind, and what cannot work."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from turnsvr.config.doorsettings import OWN_WEB, Backend
from turnsvr.config.ranges import AddressRange

if TYPE_CHECKING:
    from turnsvr.config.ranges import ListenAddress
    from turnsvr.config.settings import Settings

Word = tuple[Literal["warning", "note"], str, str]
"""Severity, setting, text."""
_MOST = {4: 2**24, 6: 2**96}
_MOST_GLOBAL = {4: 2**16, 6: 2**96}
"""More addresses than balancers have, by IP version: of private networks, and of the Internet."""


def on_doors(settings: Settings) -> Iterator[Word]:
    yield from _trusted("proxy.trusted", settings.proxy.trusted if settings.proxy else ())
    yield from _trusted("web.proxy.trusted", settings.web.proxy.trusted if settings.web and settings.web.proxy else ())
    share = settings.share
    if share is None:
        return
    plain = [each for each in shared(settings) if each.transport == "tcp" and not _is_loopback(each.host)]
    if share.http == OWN_WEB and settings.web is not None and settings.web.keys and plain:
        yield "warning", "share.http", f"takes API keys over http:// on {plain[0]}, where others can read them"
    web = {(each.host, each.port) for each in settings.web.listeners()} if settings.web is not None else set()
    if isinstance(share.http, Backend) and not share.http.header and not web.isdisjoint(share.http.reaches()):
        text = "is web itself, which would take every client for this host, /metrics open to them; write web"
        yield "warning", "share.http", text
    tls = any(each.transport == "tls" for each in shared(settings))
    if share.http2 and not tls:
        yield "note", "share.http2", "is offered inside TLS alone, which no shared listener serves"


def shared(settings: Settings) -> list[ListenAddress]:
    """Stream listeners that share their ports."""
    named = {(each.host, each.port) for address in _listed(settings) for each in address.expand()}
    streams = [each for each in settings.listeners() if not each.is_datagram]
    return [each for each in streams if not named or (each.host, each.port) in named]


def _listed(settings: Settings) -> tuple[ListenAddress, ...]:
    return settings.share.listen if settings.share is not None else ()


def _trusted(setting: str, ranges: tuple[AddressRange, ...]) -> Iterator[Word]:
    for index, each in enumerate(ranges):
        most = _MOST_GLOBAL if each.first.is_global else _MOST
        if int(each.last) - int(each.first) >= most[each.version]:
            text = f"{each} is more than balancers have: every host in it can pass for any client"
            yield "warning", f"{setting}[{index}]", text


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
