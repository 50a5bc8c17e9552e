"""`turnsvr probe`: what a client can do with a server, leg by leg.

Two allocations on the server talk to each other, relay to relay, as two browsers behind hard NATs do. That needs
no peer outside, works whatever peers the server allows, and says nothing of whether others reach a relayed address:
for that a socket of this host is the peer (outside.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json as json_text
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, ENETUNREACH

from turnsvr.client import outside, second_opinion
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link, tls_context
from turnsvr.client.probe_report import (
    FROM_OUTSIDE,
    LegReport,
    ProbeReport,
    Step,
    StepOutcome,
    advice_for,
    render,
    to_json,
)
from turnsvr.client.resolver import resolve
from turnsvr.client.transaction import ClientError, Response, Timers, TransactionFailed
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.client.uri import DEFAULT_PORT, BadUri, Leg, ServerUri, parse
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.attributes import SOFTWARE, XOR_MAPPED_ADDRESS
from turnsvr.stun.errors import ErrorCode, MalformedMessage

DEFAULT_TIMEOUT = 5.0
"""Seconds that a step may take."""

_NO_WAY = {ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH}
"""What connecting says where this host has no address of the family, or no route."""

_ECHO_SIZE = 1000
_ECHO_INTERVAL = 0.3
"""Seconds after which a packet of the echo is sent again: relays may drop."""

StepRun = Callable[[], Awaitable[tuple[float | None, str]]]


@dataclass(frozen=True, slots=True)
class Served:
    """A listener of the server, as its settings have it.

    host is an address of its own, or 0.0.0.0 or ::; the port is 0 where the server chose one as it started.
    """

    host: str
    leg: Leg
    logins: tuple[Login, ...] = ()
    """For its realm, one for each allocation, taken in turn; none where it relays nothing."""


class EchoLost(ClientError):
    """Nothing came through the relay."""


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
        target = _Target(leg.transport, Address(host, leg.port), uri.host, theirs if uri.is_turn else (), asked)
        found.append(await _Leg(target, context, timeout, second=wanted).report())
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


@dataclass(frozen=True, slots=True)
class _Target:
    """What a leg is tried at."""

    transport: Transport
    server: Address
    name: str
    logins: tuple[Login, ...]
    """None for a server that relays nothing."""
    asked: tuple[Address, ...]
    """UDP addresses of the server that may tell where it sees this host."""

    def login(self, number: int) -> Login | None:
        """Of the allocation with this number."""
        return self.logins[number % len(self.logins)] if self.logins else None


class _Leg:
    """The steps of one leg, in order; after one that fails those that need it are skipped."""

    def __init__(self, target: _Target, tls: ssl.SSLContext, patience: float, *, second: bool) -> None:
        self.transport = target.transport
        self.server = target.server
        self._target = target
        self._tls = tls
        self._patience = patience
        self._second = second
        self._timers = Timers.within(patience)
        self._clients: list[TurnClient] = []
        self._channels: list[int] = []
        self._wish = AllocateOptions()

    async def report(self) -> LegReport:
        steps: list[Step] = []
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            blocked_by: str | None = None
            for name, step, needed in self._plan():
                if blocked_by is not None:
                    steps.append(Step(name, StepOutcome.SKIPPED, detail=blocked_by))
                    continue
                result = await self._try(name, step)
                steps.append(result)
                if needed and result.outcome is not StepOutcome.OK:
                    blocked_by = f"needs {name}" if result.outcome is StepOutcome.FAILED else result.detail
        return LegReport(self.transport, self.server, tuple(steps))

    def _plan(self) -> list[tuple[str, StepRun, bool]]:
        """Each step with its name, and whether those after it need it."""
        plan: list[tuple[str, StepRun, bool]] = [("connect", self._connect, True), ("Binding", self._binding, True)]
        if self._target.logins:
            plan += [
                ("Allocate", self._allocate, True),
                ("permission", self._permit, True),
                ("echo by indications", self._echo_by_indications, True),
                ("channel", self._bind_channels, True),
                ("echo by channels", self._echo_by_channels, True),
                ("Refresh", self._refresh, True),
                (FROM_OUTSIDE, self._from_outside, False),
            ]
            if second_opinion.available():
                plan.append(("echo by aioice", self._second_opinion, False))
        return plan

    async def _try(self, name: str, step: StepRun) -> Step:
        try:
            round_trip, detail = await step()
        except (_NotTried, outside.CannotTell) as reason:
            return Step(name, StepOutcome.SKIPPED, detail=str(reason))
        except (ClientError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _NO_WAY and name == "connect":
                return Step(name, StepOutcome.SKIPPED, detail=f"this host has no way there ({error.strerror})")
            return Step(name, StepOutcome.FAILED, detail=_text(error), advice=advice_for(error, self.transport))
        return Step(name, StepOutcome.OK, round_trip, detail)

    async def _connect(self) -> tuple[float | None, str]:
        started = asyncio.get_running_loop().time()
        for number in range(2 if self._target.logins else 1):
            link = await open_link(
                self.transport, self.server, tls=self._tls, server_name=self._target.name, timers=self._timers
            )
            self._clients.append(TurnClient(link, self._target.login(number)))
        if link.transport is Transport.UDP:
            return None, ""
        return (asyncio.get_running_loop().time() - started) / len(self._clients), link.tls_version or ""

    async def _binding(self) -> tuple[float | None, str]:
        response = await self._clients[0].binding()
        try:
            mapped = response.message.get(XOR_MAPPED_ADDRESS)
            software = response.message.get(SOFTWARE)
        except MalformedMessage as error:
            raise ClientError(f"the answer cannot be read: {error}") from error
        if mapped is None:
            raise ClientError("the answer has no XOR-MAPPED-ADDRESS")
        return response.round_trip, f"seen as {mapped}" + (f" by {software}" if software else "")

    async def _allocate(self) -> tuple[float | None, str]:
        """An IPv4 relay, which is what clients ask for; an IPv6 one where the server has no other."""
        try:
            responses = [await client.allocate(self._wish) for client in self._clients]
        except TransactionFailed as failure:
            if failure.code != ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED or self._wish.family is not None:
                raise
            self._wish = AllocateOptions(family=Family.IPV6)
            return await self._allocate()
        relayed = ", ".join(str(client.relayed[0]) for client in self._clients)
        return _mean(responses), f"relayed at {relayed}"

    async def _permit(self) -> tuple[float | None, str]:
        one, other = self._clients
        return _mean([await one.permit(other.relayed[0]), await other.permit(one.relayed[0])]), ""

    async def _echo_by_indications(self) -> tuple[float | None, str]:
        one, other = self._clients
        return await self._echo(
            lambda data: one.send(other.relayed[0], data), lambda data: other.send(one.relayed[0], data)
        )

    async def _bind_channels(self) -> tuple[float | None, str]:
        one, other = self._clients
        started = asyncio.get_running_loop().time()
        self._channels = [await one.bind_channel(other.relayed[0]), await other.bind_channel(one.relayed[0])]
        return (asyncio.get_running_loop().time() - started) / 2, ""

    async def _echo_by_channels(self) -> tuple[float | None, str]:
        one, other = self._clients
        first, second = self._channels
        return await self._echo(
            lambda data: one.send_channel(first, data), lambda data: other.send_channel(second, data)
        )

    async def _refresh(self) -> tuple[float | None, str]:
        responses = [await client.refresh() for client in self._clients]
        return _mean(responses), f"lifetime {self._clients[0].lifetime} s"

    async def _second_opinion(self) -> tuple[float | None, str]:
        if not self._second:
            raise _NotTried("tried on one UDP or TCP leg only")
        if self._wish.family is not None:
            raise _NotTried("aioice asks for IPv4 relays only")
        logins = [login for number in (2, 3) if (login := self._target.login(number)) is not None]
        return await second_opinion.echo(self.transport, self.server, logins, self._patience), ""

    async def _from_outside(self) -> tuple[float | None, str]:
        asked = (self.server, *self._target.asked) if self.transport is Transport.UDP else self._target.asked
        return await outside.reach(self._clients[0], self.server, asked, self._patience)

    async def _echo(self, there: Callable[[bytes], None], back: Callable[[bytes], None]) -> tuple[float | None, str]:
        """A packet to the other allocation and back, sent again until it comes or patience ends."""
        one, other = self._clients
        payload = secrets.token_bytes(_ECHO_SIZE)
        loop = asyncio.get_running_loop()
        answering = asyncio.create_task(_answer(other, payload, back))
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    sent_at = loop.time()
                    there(payload)
                    try:
                        async with asyncio.timeout(_ECHO_INTERVAL):
                            packet = await _packet(one, payload)
                    except TimeoutError:
                        continue
                    return loop.time() - sent_at, f"peer seen as {packet.peer}"
        except TimeoutError:
            got_there = answering.done() and not answering.cancelled()
            where = "on the way back" if got_there else "on the way there"
            raise EchoLost(f"no packet came through the relay, lost {where}") from None
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _close(self) -> None:
        for client in self._clients:
            await client.close()


class _NotTried(Exception):
    """A step that is left out on purpose; the text says why."""


async def _packet(client: TurnClient, payload: bytes) -> PeerData:
    while True:
        event = await client.receive()
        if isinstance(event, PeerData) and event.data == payload:
            return event


async def _answer(client: TurnClient, payload: bytes, back: Callable[[bytes], None]) -> None:
    while True:
        await _packet(client, payload)
        back(payload)


def _mean(responses: list[Response]) -> float:
    return sum(response.round_trip for response in responses) / len(responses)


def _text(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


__all__ = ["BadUri", "ProbeReport", "Served", "probe", "render", "run"]
