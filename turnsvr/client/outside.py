"""Whether others can reach a relayed address: packets between it and a socket of this host that is no client's.

What a server relays between two of its own clients says nothing of this, since such packets never leave it.

The socket sends first: a packet that the relay had sent to it before would open a stateful firewall for the answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from turnsvr.client import outside_rules
from turnsvr.client.link import DatagramLink, new_request
from turnsvr.client.nat_sockets import host_towards
from turnsvr.client.outside_rules import Evidence
from turnsvr.client.transaction import ClientError, Timers, TransactionFailed
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import XOR_MAPPED_ADDRESS
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.message import Method

_SIZE = 1000
"""Bytes of a packet: what a call sends, so that a path with a small MTU is found out as well."""
_INTERVAL = 0.3
"""Seconds after which a packet is sent again."""
_NO_STUN = b"\xff"
"""What our packets begin with, so that none is taken for STUN or ChannelData."""
_MAX_WAITING = 256
"""Packets that wait to be looked at."""
_ASKING_SECONDS = 2.0
"""How long to wait for the server to tell the mapped address over UDP, at most."""
_EVIDENCE_SECONDS = 1.5
"""How long to look for what is wrong once nothing came."""


class CannotTell(Exception):
    """From this host nothing can be found out; the text says why and what would help."""


async def reach(client: TurnClient, server: Address, asked: Sequence[Address], patience: float) -> tuple[float, str]:
    """Send from a socket of this host to the client's relayed address and back: round-trip seconds, and from where.

    server: where the client reached it. asked: UDP addresses of the server, one of which may tell this host's mapped
    address. patience: seconds for the packets. Raises CannotTell, NotReached, ClientError of other kinds, or OSError.
    """
    relayed = client.relayed[0]
    async with _own_socket(relayed.family) as own:
        mapped = await _mapped(own.link, [each for each in asked if each.family is relayed.family], patience)
        told_over_udp = mapped is not None
        if mapped is None:
            mapped = mapped_of_stream(client, relayed.family)
        same_host = is_here(server)
        await permit(client, mapped, server, same_host=same_host)
        try:
            round_trip, peer = await _there_and_back(client, own, relayed, patience)
        except _Lost as lost:
            if mapped.host == relayed.host:
                raise CannotTell(outside_rules.own_address(mapped.host)) from None
            if not told_over_udp and not lost.arrived:
                raise CannotTell(outside_rules.no_udp()) from None
            evidence = Evidence(relayed, server.host, mapped.host, lost.arrived, same_host=same_host)
            raise outside_rules.explain(await _look(client, own, evidence, mapped)) from None
    if same_host:
        raise CannotTell(outside_rules.own_host())
    return round_trip, f"from {peer}"


class _Lost(Exception):
    """Nothing came back; arrived says whether it got there."""

    def __init__(self, *, arrived: bool) -> None:
        self.arrived = arrived


class _Own:
    """A UDP socket of this host, and what comes to it beside STUN."""

    def __init__(self, link: DatagramLink) -> None:
        self.link = link
        self.received: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue(_MAX_WAITING)
        link.handler = self._take

    def _take(self, data: bytes, source: Address) -> None:
        """Strangers may send here too: what is too much is let go."""
        with suppress(asyncio.QueueFull):
            self.received.put_nowait((data, source))


@asynccontextmanager
async def _own_socket(family: Family) -> AsyncIterator[_Own]:
    host = "::" if family is Family.IPV6 else "0.0.0.0"
    link = await DatagramLink.open(local=Address(host, 0))
    try:
        yield _Own(link)
    finally:
        await link.close()


async def _mapped(link: DatagramLink, asked: Sequence[Address], patience: float) -> Address | None:
    """What the first of these that answers says; None when none does."""
    timers = Timers.within(min(patience, _ASKING_SECONDS))

    async def ask(server: Address) -> Address | None:
        with suppress(ClientError, MalformedMessage, OSError):
            answer = await link.request(new_request(Method.BINDING), to=server, timers=timers)
            return answer.message.get(XOR_MAPPED_ADDRESS)
        return None

    waiting = {asyncio.create_task(ask(server)) for server in dict.fromkeys(asked)}
    found: Address | None = None
    while waiting and found is None:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        found = next((mapped for task in done if (mapped := task.result()) is not None), None)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return found


def mapped_of_stream(client: TurnClient, family: Family) -> Address:
    """Where the server sees the client itself: with other sockets this host most likely has the same IP address.

    Raises CannotTell where that is of another family.
    """
    if client.mapped is None or client.mapped.family is not family:
        raise CannotTell(outside_rules.no_address("IPv6" if family is Family.IPV6 else "IPv4"))
    return client.mapped


def is_here(server: Address) -> bool:
    """Whether the server runs on this host."""
    try:
        return host_towards(server) == server.host
    except OSError:
        return False


async def permit(client: TurnClient, mapped: Address, server: Address, *, same_host: bool) -> None:
    """Permit this host as a peer. Raises CannotTell where the server refuses it, other ClientErrors, or OSError."""
    try:
        await client.permit(mapped)
    except TransactionFailed as failure:
        if failure.code != ErrorCode.FORBIDDEN:
            raise
        if same_host or mapped.host in (server.host, client.relayed[0].host):
            raise CannotTell(outside_rules.own_address(mapped.host)) from None
        raise CannotTell(outside_rules.forbidden(mapped.host)) from None


async def _there_and_back(client: TurnClient, own: _Own, relayed: Address, patience: float) -> tuple[float, Address]:
    """A packet from the own socket to the relayed address, and one back; sent again until both come."""
    payload = _NO_STUN + secrets.token_bytes(_SIZE - len(_NO_STUN))
    loop = asyncio.get_running_loop()
    answering = _Answering(client, payload)
    task = asyncio.create_task(answering.run())
    try:
        async with asyncio.timeout(patience):
            while True:
                sent_at = loop.time()
                own.link.send(payload, relayed)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL):
                        await _answer_from(own, payload, relayed)
                        assert answering.peer is not None
                        return loop.time() - sent_at, answering.peer
    except TimeoutError:
        raise _Lost(arrived=answering.peer is not None) from None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Answering:
    """The client's end: every packet goes back to where it came from."""

    def __init__(self, client: TurnClient, payload: bytes) -> None:
        self._client = client
        self._payload = payload
        self.peer: Address | None = None

    async def run(self) -> None:
        while True:
            event = await self._client.receive()
            if isinstance(event, PeerData) and event.data == self._payload:
                self.peer = event.peer
                self._client.send(event.peer, self._payload)


async def _answer_from(own: _Own, payload: bytes, relayed: Address) -> None:
    while True:
        data, source = await own.received.get()
        if data == payload and source == relayed:
            return


async def _look(client: TurnClient, own: _Own, seen: Evidence, mapped: Address) -> Evidence:
    """Find out where the relay is: by packets that it sends here, and by others sent to the server's own address."""
    payload = _NO_STUN + secrets.token_bytes(_SIZE - len(_NO_STUN))
    beside = Address(seen.server, seen.relayed.port)
    try_beside = not seen.arrived and beside.host != seen.relayed.host and beside.family is seen.relayed.family
    source: Address | None = None
    arrived_beside = False

    async def at_the_relay() -> None:
        nonlocal arrived_beside
        while True:
            event = await client.receive()
            if isinstance(event, PeerData) and event.data == payload[:-1]:
                arrived_beside = True

    async def here() -> None:
        nonlocal source
        while True:
            data, from_where = await own.received.get()
            if data == payload:
                source = from_where

    tasks = [asyncio.create_task(at_the_relay()), asyncio.create_task(here())]
    for _ in range(round(_EVIDENCE_SECONDS / _INTERVAL)):
        if try_beside:
            own.link.send(payload[:-1], beside)
        client.send(mapped, payload)
        await asyncio.sleep(_INTERVAL)
        if source is not None and (arrived_beside or not try_beside):
            break
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return replace(seen, relay_source=source, by_server_address=arrived_beside)
