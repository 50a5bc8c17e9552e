"""Relay to relay, also where permissions cover no port of the host, and advertised addresses."""

from __future__ import annotations

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    SETTINGS,
    Session,
    World,
    channel_data,
    now,
    read_from_relay,
    send_indication,
)
from turnsvr.ranges import NO_PORT
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address, Family

EXTERNAL = {Family.IPV4: "203.0.113.7", Family.IPV6: "2001:db8::7"}
BEHIND_NAT = PumpSettings(
    relay_addresses=tuple(RelayAddress(LOOPBACK[family], EXTERNAL[family]) for family in FAMILIES),
)

everywhere = pytest.mark.parametrize("settings", [SETTINGS, BEHIND_NAT], ids=["plain", "behind NAT"])
families = pytest.mark.parametrize("family", FAMILIES)


def _pair(world: World, family: Family) -> tuple[Session, Session]:
    """Two sessions that permit each other."""
    a, b = world.session(family), world.session(family)
    a.permit(b.relayed.host, ports=NO_PORT)
    b.permit(a.relayed.host, ports=NO_PORT)
    return a, b


@everywhere
@families
async def test_two_clients_of_this_server_meet(
    pump_factory: PumpFactory, settings: PumpSettings, family: Family
) -> None:
    world = pump_factory(settings)
    a, b = _pair(world, family)
    a.bind(0x4000, b.relayed)
    a.send(channel_data(0x4000, b"hello"))
    assert read_from_relay(await b.receive()) == (a.relayed, b"hello")
    b.bind(0x4AAA, a.relayed)
    a.send(channel_data(0x4000, b"again"))
    assert await b.receive() == channel_data(0x4AAA, b"again")
    b.send(send_indication(a.relayed, b"back").encode())
    assert await a.receive() == channel_data(0x4000, b"back")
    world.pump.send_to_peer(a.number, b.relayed, b"by the rules", dont_fragment=False)
    assert await b.receive() == channel_data(0x4AAA, b"by the rules")


@families
async def test_it_counts_for_both_and_touches_no_network(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory(BEHIND_NAT)
    a, b = _pair(world, family)
    a.send(send_indication(b.relayed, b"hello").encode())
    await b.receive()
    totals = await world.settled(inside=1)
    assert (totals.received, totals.segments) == (1, 1)
    assert world.pump.counters(a.number) == Counters(1, 5, 0, 0, 0)
    assert world.pump.counters(b.number) == Counters(0, 0, 1, 5, 0)


@everywhere
async def test_a_session_may_be_its_own_peer(pump_factory: PumpFactory, settings: PumpSettings) -> None:
    world = pump_factory(settings)
    session = world.session()
    session.permit(session.relayed.host, ports=NO_PORT)
    session.send(send_indication(session.relayed, b"hello").encode())
    assert read_from_relay(await session.receive()) == (session.relayed, b"hello")


@families
async def test_the_other_ends_permission_is_checked(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory(BEHIND_NAT)
    a, b = world.session(family), world.session(family)
    a.permit(b.relayed.host)
    b.permit(LOOPBACK[family])
    a.send(send_indication(b.relayed, b"hello").encode())
    totals = await world.settled(inside=1)
    assert totals.drops[Drop.NO_PERMISSION] == 1
    assert world.pump.counters(b.number) == Counters(dropped=1)
    assert not b.endpoint.waiting()


async def test_the_senders_permission_is_checked(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    a, b = world.session(), world.session()
    b.permit(a.relayed.host)
    a.send(send_indication(b.relayed, b"hello").encode())
    await world.dropped(Drop.NO_PERMISSION)


@families
async def test_a_session_that_ended_is_not_reached(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory(BEHIND_NAT)
    a, b = _pair(world, family)
    world.pump.refresh(b.number, now(-0.001))
    a.send(send_indication(b.relayed, b"hello").encode())
    await world.dropped(Drop.FENCED)
    world.pump.refresh(b.number, now(60))
    world.pump.close(b.number)
    a.send(send_indication(b.relayed, b"hello").encode())
    await world.dropped(Drop.FENCED, 2)
    assert not b.endpoint.waiting()


@families
async def test_nothing_else_of_the_host_is_in_reach(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    session, service = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(service.address.host, ports=NO_PORT)
    session.bind(0x4000, service.address)
    session.send(channel_data(0x4000, b"abc"))
    session.send(send_indication(service.address, b"abc").encode())
    session.send(send_indication(world.listeners[family], b"abc").encode())
    await world.dropped(Drop.FENCED, 3)
    world.pump.send_to_peer(session.number, service.address, b"abc", dont_fragment=False)
    await world.until(lambda: world.pump.totals().drops[Drop.FENCED] == 4)
    assert not service.waiting()


async def test_peers_of_the_network_see_the_host_and_clients_the_advertised_address(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, peer = world.session(), world.endpoint()
    assert session.relayed.host == EXTERNAL[Family.IPV4]
    session.permit(peer.address.host)
    session.send(send_indication(peer.address, b"abc").encode())
    data, sender = await peer.receive()
    assert (data, sender) == (b"abc", Address("127.0.0.1", session.relayed.port))
    peer.send(b"def", sender)
    assert read_from_relay(await session.receive()) == (peer.address, b"def")
