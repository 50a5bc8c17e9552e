"""What clouds tell a machine of its own public addresses, at the link-local address that all of them use.

Any host may answer there: answers are bounded in size and time, no redirect is followed, and watch.py refuses an
address that could not be public.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from turnsvr.app.external.background import in_thread

HOST = "169.254.169.254"
_CONNECT_SECONDS = 1.0
"""For each step of an exchange; a whole one has the time of its look-up."""
_SECONDS = 3.0
"""For all questions to one cloud."""
_MAX_BYTES = 65_536
_MAX_TEXT = 512
"""Characters of an answer in plain text; a token of AWS has 56."""
_MAX_FOUND = 32
"""Addresses that one answer may tell."""

_TROUBLE = (OSError, ValueError, RecursionError)
"""What an answer that is missing or makes no sense raises; a TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """A public address, and the one of this machine that it stands for, empty where that was not said."""

    outside: str
    inside: str = ""


Headers = Mapping[str, str]
Get = Callable[..., Awaitable[str]]


async def ask() -> list[tuple[str, list[PublicAddress]]]:
    """What each cloud tells, as (name, addresses), of those that answer. Never raises."""

    async def one(
        name: str, provider: Callable[[Get], Awaitable[list[PublicAddress]]]
    ) -> tuple[str, list[PublicAddress]]:
        with suppress(*_TROUBLE):
            async with asyncio.timeout(_SECONDS):
                return name, [_checked(told) for told in (await provider(_get))[:_MAX_FOUND]]
        return name, []

    answers = await asyncio.gather(*(one(name, provider) for name, provider in _PROVIDERS.items()))
    return [(name, told) for name, told in answers if told]


def _checked(told: PublicAddress) -> PublicAddress:
    """In canonical text; raises ValueError for what is no address."""
    inside = str(ipaddress.ip_address(told.inside)) if told.inside else ""
    return PublicAddress(str(ipaddress.ip_address(told.outside)), inside)


async def _get(path: str, headers: Headers | None = None, *, method: str = "GET", mark: str = "") -> str:
    """The body of an answer 200; mark: a header that the answer has to have. Raises one of _TROUBLE."""
    from http.client import HTTPConnection, HTTPException  # costs what few servers need

    connection = HTTPConnection(HOST, timeout=_CONNECT_SECONDS)

    def fetch() -> str:
        try:
            connection.request(method, path, headers={"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            body = answer.read(_MAX_BYTES + 1)
        except HTTPException as error:
            raise ValueError("no HTTP") from error
        finally:
            connection.close()
        if answer.status != 200 or len(body) > _MAX_BYTES or (mark and answer.getheader(mark) is None):
            raise ValueError("no answer that means anything here")
        return body.decode()

    def give_up() -> None:
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(2)

    return await in_thread(fetch, _SECONDS, give_up)


async def _aws(get: Get) -> list[PublicAddress]:
    """EC2, with a session token (IMDSv2)."""
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _line(await get("/latest/api/token", seconds, method="PUT"))
    key = {"X-aws-ec2-metadata-token": token}
    outside = _line(await get("/latest/meta-data/public-ipv4", key))
    return [PublicAddress(outside, _line(await get("/latest/meta-data/local-ipv4", key)))]


async def _google(get: Get) -> list[PublicAddress]:
    flavor = "Metadata-Flavor"
    path = "/computeMetadata/v1/instance/network-interfaces/?recursive=true&alt=json"
    found: list[PublicAddress] = []
    for interface in _list(json.loads(await get(path, {flavor: "Google"}, mark=flavor))):
        for access in _list(_at(interface, "accessConfigs")):
            found += _told(_at(access, "externalIp"), _at(interface, "ip"))
    return found


async def _azure(get: Get) -> list[PublicAddress]:
    """Addresses of the interfaces, or, of those with a standard public address, by the load balancer's entry."""
    key = {"Metadata": "true"}
    interfaces = json.loads(await get("/metadata/instance/network/interface?api-version=2021-02-01&format=json", key))
    found: list[PublicAddress] = []
    for interface in _list(interfaces):
        for address in _list(_at(interface, "ipv4", "ipAddress")):
            found += _told(_at(address, "publicIpAddress"), _at(address, "privateIpAddress"))
    if found:
        return found
    balancer = json.loads(await get("/metadata/loadbalancer?api-version=2020-10-01&format=json", key))
    for address in _list(_at(balancer, "loadbalancer", "publicIpAddresses")):
        found += _told(_at(address, "frontendIpAddress"), _at(address, "privateIpAddress"))
    return found


async def _digitalocean(get: Get) -> list[PublicAddress]:
    """A reserved address stands for the anchor address; the other public one is on the machine itself."""
    known = json.loads(await get("/metadata/v1.json"))
    public = next(iter(_list(_at(known, "interfaces", "public"))), None)
    found: list[PublicAddress] = []
    for name in ("reserved_ip", "floating_ip"):
        if _at(known, name, "ipv4", "active") is True:
            found += _told(_at(known, name, "ipv4", "ip_address"), _at(public, "anchor_ipv4", "ip_address"))
    return [*found, *_told(_at(public, "ipv4", "ip_address"), "")]


async def _hetzner(get: Get) -> list[PublicAddress]:
    return [PublicAddress(_line(await get("/hetzner/v1/metadata/public-ipv4")))]


async def _oracle(get: Get) -> list[PublicAddress]:
    """The public address is not always among what it tells; then STUN has to."""
    found: list[PublicAddress] = []
    for interface in _list(json.loads(await get("/opc/v2/vnics/", {"Authorization": "Bearer Oracle"}))):
        found += _told(_at(interface, "publicIp"), _at(interface, "privateIp"))
    return found


_PROVIDERS: dict[str, Callable[[Get], Awaitable[list[PublicAddress]]]] = {
    "AWS": _aws,
    "Google Cloud": _google,
    "Azure": _azure,
    "DigitalOcean": _digitalocean,
    "Hetzner": _hetzner,
    "Oracle Cloud": _oracle,
}
"""In the order in which they are believed."""


def _line(body: str) -> str:
    """A body that is one short line of printable text; raises ValueError."""
    text = body.strip()
    if not 0 < len(text) <= _MAX_TEXT or not text.isascii() or not text.isprintable():
        raise ValueError("no short line of text")
    return text


def _told(outside: Any, inside: Any) -> Iterator[PublicAddress]:
    if isinstance(outside, str) and outside:
        yield PublicAddress(outside, inside if isinstance(inside, str) else "")


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value[:_MAX_FOUND] if isinstance(value, list) else []
