"""One leg of a server, tried step by step: what `turnsvr probe` reports of it."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, ENETUNREACH

from turnsvr.client import outside, second_opinion
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink, StreamLink, open_link
from turnsvr.client.probe_report import FROM_OUTSIDE, LegReport, Step, StepOutcome, advice_for
from turnsvr.client.probe_tcp import NotServed, TcpRelaying
from turnsvr.client.transaction import ClientError, Response, Timers, TransactionFailed
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.attributes import SOFTWARE, XOR_MAPPED_ADDRESS
from turnsvr.stun.errors import ErrorCode, MalformedMessage

_NO_WAY = {ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH}
"""What connecting says where this host has no address of the family, or no route."""

_ECHO_SIZE = 1000
_ECHO_INTERVAL = 0.3
"""Seconds after which a packet of the echo is sent again: relays may drop."""

StepRun = Callable[[], Awaitable[tuple[float | None, str]]]


class EchoLost(ClientError):
    """Nothing came through the relay."""


@dataclass(frozen=True, slots=True)
class Target:
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


class ProbedLeg:
    """The steps of one leg, in order; after one that fails those that need it are skipped."""

    def __init__(self, target: Target, tls: ssl.SSLContext, patience: float, *, second: bool) -> None:
        self.transport = target.transport
        self.server = target.server
        self._target = target
        self._tls = tls
        self._patience = patience
        self._second = second
        self._timers = Timers.within(patience)
        self._clients: list[TurnClient] = []
        self._channels: list[int] = []
        self._options = AllocateOptions()
        self._relays_tcp = False
        self._over_tcp = TcpRelaying(
            self._stream_link, (self._target.login(0), self._target.login(1)), self.server, patience
        )

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
            if self.transport.is_stream:
                plan += [
                    ("relaying over TCP", self._relay_over_tcp, False),
                    ("TCP from outside", self._tcp_from_outside, False),
                ]
            if second_opinion.available():
                plan.append(("echo by aioice", self._second_opinion, False))
        return plan

    async def _try(self, name: str, step: StepRun) -> Step:
        try:
            round_trip, detail = await step()
        except (_NotTried, NotServed, outside.CannotTell) as reason:
            return Step(name, StepOutcome.SKIPPED, detail=str(reason))
        except (ClientError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _NO_WAY and name == "connect":
                return Step(name, StepOutcome.SKIPPED, detail=f"this host has no way there ({error.strerror})")
            return Step(name, StepOutcome.FAILED, detail=_text(error), advice=advice_for(error, self.transport))
        return Step(name, StepOutcome.OK, round_trip, detail)

    async def _connect(self) -> tuple[float | None, str]:
        started = asyncio.get_running_loop().time()
        for number in range(2 if self._target.logins else 1):
            link = await self._link()
            self._clients.append(TurnClient(link, self._target.login(number)))
        if link.transport is Transport.UDP:
            return None, ""
        return (asyncio.get_running_loop().time() - started) / len(self._clients), link.tls_version or ""

    async def _link(self) -> DatagramLink | StreamLink:
        return await open_link(
            self.transport, self.server, tls=self._tls, server_name=self._target.name, timers=self._timers
        )

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
            responses = [await client.allocate(self._options) for client in self._clients]
        except TransactionFailed as failure:
            if failure.code != ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED or self._options.family is not None:
                raise
            self._options = AllocateOptions(family=Family.IPV6)
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
        if self._options.family is not None:
            raise _NotTried("aioice asks for IPv4 relays only")
        logins = [login for number in (2, 3) if (login := self._target.login(number)) is not None]
        return await second_opinion.echo(self.transport, self.server, logins, self._patience), ""

    async def _from_outside(self) -> tuple[float | None, str]:
        asked = (self.server, *self._target.asked) if self.transport is Transport.UDP else self._target.asked
        return await outside.reach(self._clients[0], self.server, asked, self._patience)

    async def _relay_over_tcp(self) -> tuple[float | None, str]:
        took = await self._over_tcp.echo(self._options.family)
        self._relays_tcp = True
        return took

    async def _tcp_from_outside(self) -> tuple[float | None, str]:
        if not self._relays_tcp:
            raise _NotTried("needs relaying over TCP")
        try:
            return await self._over_tcp.outside()
        finally:
            await self._over_tcp.close()

    async def _stream_link(self) -> StreamLink:
        link = await self._link()
        assert isinstance(link, StreamLink)
        return link

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
        await self._over_tcp.close()
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
