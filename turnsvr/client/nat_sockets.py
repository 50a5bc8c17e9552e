"""What the NAT measurements send with: paced sockets at random ports, whose losses are counted."""

from __future__ import annotations

import asyncio
import random as randomness
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from errno import EADDRINUSE
from typing import NamedTuple

from turnsvr.client import nat_rules
from turnsvr.client.link import DatagramLink, new_request
from turnsvr.client.transaction import Response, Timers, TransactionTimeout
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import MAPPED_ADDRESS, OTHER_ADDRESS, SOFTWARE, XOR_MAPPED_ADDRESS
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Message, Method

_PORTS = range(32768, 65536)
"""Where RFC 5780 section 4.1 wants source ports from."""
_PORT_TRIES = 64
_MAX_REPETITIONS = 4
"""Transactions that are tried before silence is put down to loss."""

# Not in the socket module; Linux's numbers.
_IP_MTU, _IPV6_MTU = 14, 24


@dataclass(frozen=True, slots=True)
class Tempo:
    """How patiently and how fast to measure."""

    timers: Timers = field(default_factory=Timers)
    """For the first requests; later ones have an RTO that follows the round-trip times, as RFC 8489 wants it."""
    least_rto: float = 0.1
    """Seconds."""
    pace: float = 0.1
    """Seconds between new transactions (RFC 5780 section 5: at most ten a second)."""


class BindingResponse(NamedTuple):
    """A Binding success response with what the measurements look at."""

    response: Response
    mapped: Address
    plain_mapped: Address | None
    """MAPPED-ADDRESS, which a gateway that rewrites addresses inside packets would have changed."""
    other: Address | None
    software: str | None

    @classmethod
    def read(cls, response: Response) -> BindingResponse:
        """Raises MalformedMessage, also when the mapped address is missing."""
        message = response.message
        plain = message.get(MAPPED_ADDRESS)
        mapped = message.get(XOR_MAPPED_ADDRESS) or plain
        if mapped is None:
            raise MalformedMessage("a Binding answer without XOR-MAPPED-ADDRESS")
        return cls(response, mapped, plain, message.get(OTHER_ADDRESS), message.get(SOFTWARE))


class NatSockets:
    """Opens sockets at the address that this host has towards the server, and sends Binding requests from them."""

    def __init__(self, host: str, server: Address, tempo: Tempo, random: randomness.Random) -> None:
        self.host = host
        self.server = server
        self.tempo = tempo
        self.timers = tempo.timers
        self.sent = 0
        self.answered = 0
        self.rewritten: bool | None = None
        """Whether a MAPPED-ADDRESS differed from its XOR-MAPPED-ADDRESS; None before there was one."""
        self._random = random
        self._round_trips: list[float] = []
        self._next = 0.0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> NatSockets:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    async def open(self, accepts_port: Callable[[int], bool] = lambda port: True) -> DatagramLink:
        """A socket at a random port that suits, closed with this object. Raises OSError."""
        for _ in range(_PORT_TRIES):
            port = self._random.choice(_PORTS)
            if not accepts_port(port):
                continue
            try:
                link = await DatagramLink.open(local=Address(self.host, port), timers=self.timers)
            except OSError as error:
                if error.errno != EADDRINUSE:
                    raise
                continue
            self._stack.push_async_callback(link.close)
            return link
        raise OSError(EADDRINUSE, "no free UDP port found")

    async def turn(self) -> None:
        """Wait until the next transaction may start."""
        loop = asyncio.get_running_loop()
        at = max(self._next, loop.time())
        self._next = at + self.tempo.pace
        await asyncio.sleep(at - loop.time())

    async def binding(
        self, link: DatagramLink, to: Address | None = None, request: Message | None = None
    ) -> BindingResponse:
        """A Binding transaction; raises TransactionTimeout, TransactionFailed, MalformedMessage or OSError."""
        await self.turn()
        request = request or new_request(Method.BINDING)
        answer = BindingResponse.read(await link.request(request, to=to or self.server, timers=self.timers))
        if answer.plain_mapped is not None:
            self.rewritten = bool(self.rewritten) or answer.plain_mapped != answer.mapped
        return answer

    async def plain_binding(self, link: DatagramLink) -> BindingResponse:
        """binding() with the server's primary address, which counts in the loss and in the RTO."""
        try:
            answer = await self.binding(link)
        except TransactionTimeout as timeout:
            self.sent += timeout.sent
            raise
        self.sent += answer.response.sent
        self.answered += 1
        if answer.response.sent == 1:  # Karn: otherwise it cannot be told which transmission was answered
            self._round_trips.append(answer.response.round_trip)
        first = self.tempo.timers
        self.timers = replace(
            first, rto=nat_rules.rto(self._round_trips, min(self.tempo.least_rto, first.rto), first.rto)
        )
        return answer

    async def persistent_binding(
        self, link: DatagramLink, to: Address | None = None, request: Message | None = None
    ) -> BindingResponse:
        """binding(), repeated while loss alone might explain that nothing comes.

        Raises what binding() raises; a TransactionTimeout says how often the request was sent in all.
        """
        sent = 0
        for _ in range(_MAX_REPETITIONS):
            try:
                return await self.binding(link, to, request)
            except TransactionTimeout as timeout:
                sent += timeout.sent
            if self.silence_counts(sent):
                break
        raise TransactionTimeout(sent)

    @property
    def round_trip(self) -> float | None:
        """The shortest one seen, in seconds."""
        return min(self._round_trips, default=None)

    def patient_waits(self) -> Iterator[float]:
        """The waits of a transaction, repeated as persistent_binding() repeats it."""
        sent = 0
        for _ in range(_MAX_REPETITIONS):
            for wait in self.timers.waits():
                sent += 1
                yield wait
            if self.silence_counts(sent):
                break

    def silence_counts(self, transmissions: int) -> bool:
        """Whether no answer to a request sent so often says more than that packets get lost here."""
        return nat_rules.silence_counts(self.sent, self.answered, transmissions)


def host_towards(server: Address) -> str:
    """The address of this host that packets to the server leave from. Raises OSError."""
    with _connected(server) as probe:
        return str(probe.getsockname()[0])


def mtu_towards(server: Address) -> int | None:
    """What this host knows of the path's MTU, in bytes of IP; None where the system does not say."""
    level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if server.family is Family.IPV6 else (socket.IPPROTO_IP, _IP_MTU)
    try:
        with _connected(server) as probe:
            return probe.getsockopt(level, option)
    except OSError:
        return None


def _connected(server: Address) -> socket.socket:
    probe = socket.socket(server.family.socket_family, socket.SOCK_DGRAM)
    try:
        probe.connect(tuple(server))
    except OSError:
        probe.close()
        raise
    return probe
