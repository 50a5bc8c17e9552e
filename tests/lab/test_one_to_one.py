"""A server behind one-to-one NAT, as in a cloud or in Docker, in a router that does not hairpin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.client.coturn import PASSWORD, USER, listens
from tests.lab.conftest import OURS, turnsvr
from tests.lab.netlab import Node, laboratory, require
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link
from turnsvr.client.transaction import Timers
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.stun.address import Address, Transport

LOGIN = Login(USER, PASSWORD)
PATIENCE = 20.0


@dataclass(frozen=True)
class Cloud:
    """The server's host, the public address that stands for it, and two hosts elsewhere."""

    host: Node
    public: str
    elsewhere: tuple[Node, Node]

    @property
    def server(self) -> Address:
        return Address(self.public, OURS.port)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    require()
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory())
        site = stack.enter_context(lab.one_to_one())
        outside = tuple(stack.enter_context(lab.host())[0] for _ in range(2))
        settings = {
            "listen": [f"udp://{site.address}", f"tcp://{site.address}"],
            "relay": {"addresses": [site.address], "external": {site.address: site.public}},
        }
        stack.enter_context(turnsvr(site.client, tmp_path_factory.mktemp("cloud"), settings))
        yield Cloud(site.client, site.public, (outside[0], outside[1]))


async def open_client(server: Address, transport: Transport) -> TurnClient:
    client = TurnClient(await open_link(transport, server, timers=Timers.within(PATIENCE)), LOGIN)
    await client.allocate()
    return client


def test_the_router_does_not_hairpin(cloud: Cloud) -> None:
    async def look(server: Address) -> bool:
        return listens(server)

    assert cloud.elsewhere[0].run(lambda: look(cloud.server))
    assert not cloud.host.run(lambda: look(cloud.server))


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_two_clients_reach_each_other_through_their_relayed_addresses(cloud: Cloud, transport: Transport) -> None:
    here, there = cloud.elsewhere
    one = await here.call(lambda: open_client(cloud.server, transport))
    other = await there.call(lambda: open_client(cloud.server, transport))
    try:
        one_relayed, other_relayed = one.relayed[0], other.relayed[0]
        assert {one_relayed.host, other_relayed.host} == {cloud.public}

        async def by_indication(client: TurnClient, peer: Address) -> None:
            await client.permit(peer)

        await here.call(lambda: by_indication(one, other_relayed))
        await there.call(lambda: by_indication(other, one_relayed))

        async def send(client: TurnClient, peer: Address, data: bytes) -> None:
            client.send(peer, data)

        async def bind_and_send(client: TurnClient, peer: Address, data: bytes) -> int:
            channel = await client.bind_channel(peer)
            client.send_channel(channel, data)
            return channel

        await here.call(lambda: send(one, other_relayed, b"by an indication"))
        async with asyncio.timeout(PATIENCE):
            assert await there.call(other.receive) == PeerData(one_relayed, b"by an indication")
            await there.call(lambda: bind_and_send(other, one_relayed, b"by a channel"))
            assert await here.call(one.receive) == PeerData(other_relayed, b"by a channel")
            channel = await here.call(lambda: bind_and_send(one, other_relayed, b"and back"))
            answer = await there.call(other.receive)
        assert isinstance(answer, PeerData)
        assert (answer.peer, answer.data) == (one_relayed, b"and back")
        assert channel in range(0x4000, 0x5000)
    finally:
        await here.call(one.close)
        await there.call(other.close)
