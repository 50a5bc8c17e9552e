"""A client that changes its address in the middle of a call (RFC 8016), in namespaces: what it loses by that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.client.coturn import PASSWORD, USER
from tests.lab.conftest import OURS, turnsvr
from tests.lab.netlab import Node, laboratory, require
from tests.lab.routers import PUBLIC_V4
from turnsvr.client.credentials import Login
from turnsvr.client.link import ClientLink, DatagramLink, StreamLink
from turnsvr.client.transaction import Timers
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.stun.address import Address, Transport

TIMERS = Timers.within(20)
_PERIOD = 0.01
"""Seconds between packets, each way."""
_PACKETS = 200
_MOVES_AT = 60
_HOME, _ABROAD = f"{PUBLIC_V4}.201", f"{PUBLIC_V4}.202"


@dataclass(frozen=True)
class Roads:
    """The server, a host that has one address and then another, and one where its peer is."""

    server: Address
    client: Node
    peer: Node
    peer_host: str


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roads]:
    require()
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory())
        client, _ = stack.enter_context(lab.host())
        peer, peer_host = stack.enter_context(lab.host())
        address = lab.servers_v4[0]
        settings = {
            "listen": [f"{transport}://{address}" for transport in ("udp", "tcp")],
            "relay": {"addresses": [address]},
            "stun": {"mobility": True},
        }
        stack.enter_context(turnsvr(lab.core, tmp_path_factory.mktemp("moving"), settings))
        yield Roads(Address(address, OURS.port), client, peer, peer_host)


class Far(asyncio.DatagramProtocol):
    """The peer: keeps what it hears, and speaks to whoever spoke to it."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.client: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append(int(data))
        self.client = addr

    async def speak(self) -> None:
        while self.client is None:  # noqa: ASYNC110
            await asyncio.sleep(_PERIOD)
        for number in range(_PACKETS):
            self.transport.sendto(b"%d" % number, self.client)
            await asyncio.sleep(_PERIOD)

    async def close(self) -> None:
        self.transport.close()
        await asyncio.sleep(0)


@dataclass
class Result:
    """Numbers of the packets that arrived."""

    by_client: list[int] = field(default_factory=list)
    by_peer: list[int] = field(default_factory=list)


async def link(transport: Transport, server: Address, host: str) -> ClientLink:
    if transport is Transport.UDP:
        return await DatagramLink.open(server, local=Address(host, 0), timers=TIMERS)
    return await StreamLink.open(server, local=Address(host, 0), timers=TIMERS)


async def opened(transport: Transport, roads: Roads) -> TurnClient:
    client = TurnClient(await link(transport, roads.server, _HOME), Login(USER, PASSWORD))
    await client.allocate(AllocateOptions(mobile=True))
    return client


async def listen(client: TurnClient, heard: list[int]) -> None:
    while True:
        event = await client.receive()
        if isinstance(event, PeerData):
            heard.append(int(event.data))


async def talk(roads: Roads, before: Transport, after: Transport, peer: Address, result: Result) -> None:
    """The client's end of a call, from one address and then from another; the first one goes away behind it."""
    client = await opened(before, roads)
    channel = await client.bind_channel(peer)
    ears = asyncio.create_task(listen(client, result.by_client))
    for number in range(_PACKETS):
        if number == _MOVES_AT:
            roads.client.ip(f"addr add {_ABROAD}/24 dev eth0")
            left = await client.move(await link(after, roads.server, _ABROAD))
        client.send_channel(channel, b"%d" % number)
        if number == _MOVES_AT + 5:
            await left.close()
            roads.client.ip(f"addr del {_HOME}/24 dev eth0")
        await asyncio.sleep(_PERIOD)
    await asyncio.sleep(0.3)
    ears.cancel()
    await client.close()


@pytest.mark.parametrize("after", [Transport.UDP, Transport.TCP])
@pytest.mark.parametrize("before", [Transport.UDP, Transport.TCP])
def test_a_call_goes_on_from_another_address(roads: Roads, before: Transport, after: Transport) -> None:
    """Nothing is lost either way but what was on its way; here that is a packet or two, and nothing comes twice."""
    result = Result()
    roads.client.ip(f"addr replace {_HOME}/24 dev eth0")

    async def far_end() -> tuple[Far, Address]:
        loop = asyncio.get_running_loop()
        far = (await loop.create_datagram_endpoint(Far, (roads.peer_host, 0)))[1]
        return far, Address(*far.transport.get_extra_info("sockname")[:2])

    far, peer = roads.peer.run(far_end)
    voice = roads.peer.start(far.speak)
    try:
        roads.client.run(lambda: talk(roads, before, after, peer, result))
        voice.result(20)
    finally:
        roads.client.ip(f"addr del {_ABROAD}/24 dev eth0")
        roads.peer.run(far.close)
    result.by_peer = far.heard
    for way, heard in (("from the client", result.by_peer), ("to the client", result.by_client)):
        lost = set(range(_PACKETS)) - set(heard)
        assert len(lost) <= 3, f"{way}: {sorted(lost)}"
        assert len(heard) == len(set(heard)), way


def test_a_call_outlives_a_connection_that_is_gone(roads: Roads) -> None:
    """Break before make: the address and with it the TCP connection are gone before another address is there."""

    async def lose_and_find() -> None:
        roads.client.ip(f"addr replace {_HOME}/24 dev eth0")
        client = await opened(Transport.TCP, roads)
        relayed = client.relayed[0]
        await client.permit(relayed)
        roads.client.ip(f"addr del {_HOME}/24 dev eth0", f"addr add {_ABROAD}/24 dev eth0")
        left = await client.move(await link(Transport.UDP, roads.server, _ABROAD))
        client.send(relayed, b"to myself")
        assert await asyncio.wait_for(client.receive(), 20) == PeerData(relayed, b"to myself")
        await client.refresh(0)
        await client.close()
        await left.close()

    try:
        roads.client.run(lose_and_find)
    finally:
        roads.client.ip(f"addr del {_ABROAD}/24 dev eth0")
