"""What an operator observes of a pump: packets of one session, and clients of whom everything goes up."""

from __future__ import annotations

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import FAMILIES, LOOPBACK, channel_data, request
from turnsvr.relay.api import MAX_OBSERVED, TOLD_BYTES
from turnsvr.stun.address import Family
from turnsvr.stun.message import Method

families = pytest.mark.parametrize("family", FAMILIES)


@families
async def test_requests_of_observed_clients_all_go_up(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    client = world.endpoint(LOOPBACK[family])
    server = world.listeners[family]
    plain = request(Method.BINDING).encode()
    client.send(plain, server)
    await client.receive()
    assert not world.notes.messages
    world.pump.observe([client.address.host])
    client.send(plain, server)
    await world.until(lambda: len(world.notes.messages) == 1)
    assert world.notes.messages[0][1] == plain
    world.pump.observe([])
    client.send(plain, server)
    await client.receive()
    assert len(world.notes.messages) == 1


async def test_few_hosts_are_observed(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    with pytest.raises(ValueError, match="more than"):
        world.pump.observe([f"192.0.2.{number}" for number in range(MAX_OBSERVED + 1)])


@families
async def test_packets_of_a_session_are_told_both_ways(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    session, other = world.session(family), world.session(family)
    peer = world.endpoint(LOOPBACK[family])
    for each in (session, other):
        each.permit(peer.address.host)
        each.bind(0x4000, peer.address)
    world.pump.tell(1, True)
    large = bytes(range(256)) * 20
    for each in (session, other):
        each.send(channel_data(0x4000, large))
        await peer.receive()
    peer.send(b"back", session.relayed)
    await session.receive()
    await world.until(lambda: len(world.notes.told) == 2)
    there, back = world.notes.told
    assert (there.session, there.peer, there.from_client, there.untold) == (1, peer.address, True, 0)
    assert (there.data, there.size) == (large[:TOLD_BYTES], len(large))
    assert (back.session, back.peer, back.from_client, back.data, back.size) == (1, peer.address, False, b"back", 4)
    world.pump.tell(1, False)
    peer.send(b"unseen", session.relayed)
    await session.receive()
    world.pump.tell(99, True)
    assert len(world.notes.told) == 2
