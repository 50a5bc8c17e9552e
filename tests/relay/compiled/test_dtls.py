"""DTLS at a listener: hands are shaken, messages go up and down, data are relayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.relay.compiled.dtls_client import DtlsWorld
from tests.relay.world import SETTINGS, channel_data, now, request
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.api import PumpSettings
from turnsvr.relay.compiled import tls as tls_room
from turnsvr.stun.address import Family, Transport

FAMILIES = [Family.IPV4, Family.IPV6]

MakeWorld = Callable[..., DtlsWorld]


@pytest.fixture
async def make_world(certificate: TlsFiles) -> Iterator[MakeWorld]:
    if tls_room.missing():
        pytest.skip(tls_room.missing())
    worlds: list[DtlsWorld] = []

    def make(settings: PumpSettings = SETTINGS) -> DtlsWorld:
        worlds.append(DtlsWorld(certificate, settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.end()


@pytest.mark.parametrize("family", FAMILIES)
async def test_messages_go_up_and_down(make_world: MakeWorld, family: Family) -> None:
    world = make_world()
    client = world.client(family)
    await client.shake_hands()
    message = request().encode()
    client.say(message)
    five_tuple = await client.known()
    assert five_tuple[:3] == (Transport.DTLS, client.endpoint.address, world.listeners[family])
    assert five_tuple.connection > 0
    assert world.notes.messages == [(five_tuple, message)]
    world.pump.send(five_tuple, b"answer")
    assert await client.read() == b"answer"
    assert client.end.version == "DTLSv1.2"


async def test_data(make_world: MakeWorld) -> None:
    world = make_world()
    client, peer = world.client(), world.endpoint()
    await client.shake_hands()
    await client.session(request().encode())
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    client.say(channel_data(0x4000, b"up"))
    assert await peer.receive() == (b"up", client.relayed)
    peer.send(b"downwards", client.relayed)
    assert await client.read() == channel_data(0x4000, b"downwards")
