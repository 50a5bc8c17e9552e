"""`turnsvr probe`: what a client can do with a server, leg by leg.

Two allocations on the server talk to each other, relay to relay, as two browsers behind hard NATs do. That needs
no peer outside and works whatever peers the server allows.
"""

from __future__ import annotations

import asyncio
import json as json_text
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, ENETUNREACH

from turnsvr.client import second_opinion
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink, open_link, resolve, tls_context
from turnsvr.client.probe_report import LegReport, Outcome, ProbeReport, Step, advice_for, render, to_json
from turnsvr.client.transaction import ClientError, Response, Timers, TransactionFailed
from turnsvr.client.turn import PeerData, TurnClient, Wish
from turnsvr.client.uri import DEFAULT_PORT, BadUri, ServerUri, parse
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


class EchoLost(ClientError):
    """Nothing came through the relay."""


async def probe(
    url: str,
    username: str | None,
    password: str | None,
    *,
    insecure: bool = False,
    timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - of a step, not of the whole
) -> ProbeReport:
    """Try every leg of url; raises BadUri, and ValueError when a turn: URL comes without credentials."""
    uri = parse(url)
    if uri.is_turn and (not username or password is None):
        raise ValueError("a TURN server wants a user name and a password")
    login = Login(username, password) if username and password is not None and uri.is_turn else None
    try:
        hosts = await resolve(uri.host)
    except OSError as error:
        return ProbeReport(url, (), problem=f"{uri.host} has no address: {error.strerror}")
    context = tls_context(insecure=insecure)
    found = []
    second = True
    for host in _one_a_family(hosts):
        for leg in uri.legs():
            wanted = second and leg.transport is not Transport.TLS
            run = _Leg(leg.transport, Address(host, leg.port), uri.host, login, context, timeout, second=wanted)
            found.append(await run.report())
            second = second and not (wanted and found[-1].was_tried)
    return ProbeReport(url, tuple(found), notes=_notes(uri))


def run(
    url: str,
    username: str | None,
    password: str | None,
    *,
    insecure: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    json: bool = False,
) -> int:
    """Probe and print; exit status 0 when all works, 1 when something failed, 2 for bad usage."""
    try:
        report = asyncio.run(probe(url, username, password, insecure=insecure, timeout=timeout))
    except ValueError as error:
        print(json_text.dumps({"error": str(error)}) if json else f"turnsvr probe: {error}")
        return 2
    print(json_text.dumps(to_json(report), indent=2) if json else render(report))
    return 0 if report.ok else 1


def _one_a_family(hosts: tuple[Address, ...]) -> list[str]:
    return list({address.family: address.host for address in reversed(hosts)}.values())[::-1]


def _notes(uri: ServerUri) -> tuple[str, ...]:
    if uri.transport is None and uri.port not in (None, DEFAULT_PORT):
        return (
            f"TLS was not tried, its port is not known: {'turns' if uri.is_turn else 'stuns'}:{uri.host}:PORT does",
        )
    return ()


class _Leg:
    """The steps of one leg, in order; after one that fails the rest are skipped."""

    def __init__(
        self,
        transport: Transport,
        server: Address,
        name: str,
        login: Login | None,
        tls: ssl.SSLContext,
        patience: float,
        *,
        second: bool,
    ) -> None:
        self.transport = transport
        self.server = server
        self._name = name
        self._login = login
        self._tls = tls
        self._patience = patience
        self._second = second
        self._timers = Timers.within(patience)
        self._clients: list[TurnClient] = []
        self._channels: list[int] = []
        self._wish = Wish()

    async def report(self) -> LegReport:
        steps: list[Step] = []
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            blocked_by: str | None = None
            for name, step in self._plan():
                if blocked_by is not None:
                    steps.append(Step(name, Outcome.SKIPPED, detail=blocked_by))
                    continue
                result = await self._try(name, step)
                steps.append(result)
                if result.outcome is Outcome.FAILED:
                    blocked_by = f"needs {name}"
                elif result.outcome is Outcome.SKIPPED:
                    blocked_by = result.detail
        return LegReport(self.transport, self.server, tuple(steps))

    def _plan(self) -> list[tuple[str, StepRun]]:
        plan: list[tuple[str, StepRun]] = [("connect", self._connect), ("Binding", self._binding)]
        if self._login is not None:
            plan += [
                ("Allocate", self._allocate),
                ("permission", self._permit),
                ("echo by indications", self._echo_by_indications),
                ("channel", self._bind_channels),
                ("echo by channels", self._echo_by_channels),
                ("Refresh", self._refresh),
            ]
            if second_opinion.available():
                plan.append(("echo by aioice", self._second_opinion))
        return plan

    async def _try(self, name: str, step: StepRun) -> Step:
        try:
            round_trip, detail = await step()
        except _NotTried as reason:
            return Step(name, Outcome.SKIPPED, detail=str(reason))
        except (ClientError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _NO_WAY and name == "connect":
                return Step(name, Outcome.SKIPPED, detail=f"this host has no way there ({error.strerror})")
            return Step(name, Outcome.FAILED, detail=_text(error), advice=advice_for(error, self.transport))
        return Step(name, Outcome.OK, round_trip, detail)

    async def _connect(self) -> tuple[float | None, str]:
        started = asyncio.get_running_loop().time()
        for _ in range(1 if self._login is None else 2):
            link = await open_link(
                self.transport, self.server, tls=self._tls, server_name=self._name, timers=self._timers
            )
            self._clients.append(TurnClient(link, self._login))
        if not isinstance(link, StreamLink):
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
            self._wish = Wish(family=Family.IPV6)
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
        assert self._login is not None
        return await second_opinion.echo(self.transport, self.server, self._login, self._patience), ""

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


__all__ = ["BadUri", "ProbeReport", "probe", "render", "run"]
