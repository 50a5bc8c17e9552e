"""`turnsvr probe`: what a client can do with a server, leg by leg.

Two allocations on the server talk to each other, relay to relay, as two browsers behind hard NATs do. That needs
no peer outside, works whatever peers the server allows, and says nothing of whether others reach a relayed address:
for that a socket of this host is the peer (outside.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json as json_text
from collections.abc import Sequence
from dataclasses import dataclass

from turnsvr.client.credentials import Login
from turnsvr.client.link import tls_context
from turnsvr.client.probe_leg import ProbedLeg, Target
from turnsvr.client.probe_report import (
    ProbeReport,
    render,
    to_json,
)
from turnsvr.client.resolver import resolve
from turnsvr.client.uri import DEFAULT_PORT, BadUri, Leg, ServerUri, parse
from turnsvr.stun.address import Address, Transport

DEFAULT_TIMEOUT = 5.0
"""Seconds that a step may take."""


@dataclass(frozen=True, slots=True)
class Served:
    """A listener of the server, as its settings have it.

    host is an address of its own, or 0.0.0.0 or ::; the port is 0 where the server chose one as it started.
    """

    host: str
    leg: Leg
    logins: tuple[Login, ...] = ()
    """For its realm, one for each allocation, taken in turn; none where it relays nothing."""


async def probe(
    url: str,
    username: str | None = None,
    password: str | None = None,
    *,
    served: Sequence[Served] = (),
    insecure: bool = False,
    timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - of a step, not of the whole
) -> ProbeReport:
    """Try every leg of url; where the server's listeners are known, those of them that url means.

    Raises BadUri, and ValueError when a turn: URL comes without credentials.
    """
    uri = parse(url)
    logins = (Login(username, password),) if username and password is not None else ()
    if uri.is_turn and not logins and not served:
        raise ValueError("a TURN server wants a user name and a password")
    try:
        hosts = await resolve(uri.host, timeout)
    except OSError as error:
        return ProbeReport(url, (), problem=f"{uri.host} has no address: {error.strerror}")
    context = tls_context(insecure=insecure)
    chosen = _one_a_family(hosts)
    plan = [(host, way) for host in chosen for way in _ways(uri, host, served, logins)]
    if not plan:
        return ProbeReport(url, (), problem=f"the settings name no port at {', '.join(chosen)}")
    asked = tuple(Address(host, port) for host in chosen for port in _udp_ports(uri, host, served))
    found = []
    second = True
    for host, (leg, theirs) in plan:
        wanted = second and not leg.transport.is_encrypted
        target = Target(leg.transport, Address(host, leg.port), uri.host, theirs if uri.is_turn else (), asked)
        found.append(await ProbedLeg(target, context, timeout, second=wanted).report())
        second = second and not (wanted and found[-1].was_tried)
    return ProbeReport(url, tuple(found), notes=_notes(uri, served))


def run(
    url: str,
    username: str | None = None,
    password: str | None = None,
    *,
    served: Sequence[Served] = (),
    insecure: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    json: bool = False,
) -> int:
    """Probe and print; exit status 0 when all works, 1 when something failed, 2 for bad usage."""
    try:
        report = asyncio.run(probe(url, username, password, served=served, insecure=insecure, timeout=timeout))
    except ValueError as error:
        print(json_text.dumps({"error": str(error)}) if json else f"turnsvr probe: {error}")
        return 2
    print(json_text.dumps(to_json(report), indent=2) if json else render(report))
    return 0 if report.ok else 1


def _one_a_family(hosts: tuple[Address, ...]) -> list[str]:
    return list({address.family: address.host for address in reversed(hosts)}.values())[::-1]


def _ways(
    uri: ServerUri, host: str, served: Sequence[Served], logins: tuple[Login, ...]
) -> list[tuple[Leg, tuple[Login, ...]]]:
    """The legs to try at one address of the server, each with its logins.

    What the URL names and the settings do not serve is tried all the same: a router may put other ports in front.
    """
    if not served:
        return [(leg, logins) for leg in uri.legs()]
    found: dict[Leg, tuple[Login, ...]] = {}
    for each in _served_at(host, served):
        if _means(uri, each.leg):
            found.setdefault(each.leg, each.logins)
    if found or (uri.port is None and uri.transport is None):
        return list(found.items())
    return [
        (leg, next((each.logins for each in served if each.leg.transport is leg.transport), served[0].logins))
        for leg in uri.legs()
    ]


def _served_at(host: str, served: Sequence[Served]) -> list[Served]:
    """The listeners at this address, or, where it is none of the server's own, behind the NAT that has it."""
    family = Address(host, 0).family
    same = [each for each in served if Address(each.host, 0).family is family]
    if any(each.host == host for each in same):
        return [each for each in same if each.host in (host, *_WILDCARDS)]
    loopback = ipaddress.ip_address(host).is_loopback
    return [each for each in same if each.host in _WILDCARDS or not (loopback or _is_loopback(each.host))]


_WILDCARDS = ("0.0.0.0", "::")


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _means(uri: ServerUri, leg: Leg) -> bool:
    """Whether this is one of the legs that the URL stands for; one without port and transport stands for all."""
    return bool(leg.port) and uri.port in (None, leg.port) and uri.transport in (None, leg.transport)


def _udp_ports(uri: ServerUri, host: str, served: Sequence[Served]) -> list[int]:
    """Where the server may answer a Binding over UDP."""
    known = [
        each.leg.port for each in _served_at(host, served) if each.leg.transport is Transport.UDP and each.leg.port
    ]
    return known or list(dict.fromkeys((uri.port or DEFAULT_PORT, DEFAULT_PORT)))


def _notes(uri: ServerUri, served: Sequence[Served]) -> tuple[str, ...]:
    if not served and uri.transport is None and uri.port not in (None, DEFAULT_PORT):
        return (
            f"TLS was not tried, its port is not known: {'turns' if uri.is_turn else 'stuns'}:{uri.host}:PORT does",
        )
    if served and uri.is_turn and not any(each.logins for each in served):
        return ("nothing is relayed here (stun_only): Binding alone was tried",)
    return ()


__all__ = ["BadUri", "ProbeReport", "Served", "probe", "render", "run"]
