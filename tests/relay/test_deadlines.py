"""Nothing passes without a live session, a live permission and, where one is used, a live channel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import SETTINGS, channel_data, now, read_from_relay, send_indication
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address, Family


async def test_no_permission(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit("127.9.9.9")
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"abc"))
    session.send(send_indication(peer.address, b"abc").encode())
    peer.send(b"abc", session.relayed)
    await world.dropped(Drop.NO_PERMISSION, 3)
    assert not peer.waiting() + session.endpoint.waiting()
    assert world.pump.counters(session.number) == Counters(dropped=3)


async def test_an_expired_permission(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host, offset=-0.001)
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"abc"))
    session.send(send_indication(peer.address, b"abc").encode())
    peer.send(b"abc", session.relayed)
    await world.dropped(Drop.EXPIRED, 3)
    assert not peer.waiting() + session.endpoint.waiting()
    session.permit(peer.address.host)
    peer.send(b"again", session.relayed)
    assert await session.receive() == channel_data(0x4000, b"again")


async def test_a_permission_is_for_the_host_whatever_the_port(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session = world.session()
    session.permit("127.0.0.1")
    for _ in range(3):
        peer = world.endpoint()
        peer.send(b"abc", session.relayed)
        assert read_from_relay(await session.receive()) == (peer.address, b"abc")


async def test_an_expired_session(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(offset=-0.001), world.endpoint()
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"abc"))
    peer.send(b"abc", session.relayed)
    await world.dropped(Drop.EXPIRED, 2)
    world.pump.refresh(session.number, now(60))
    session.send(channel_data(0x4000, b"again"))
    assert (await peer.receive())[0] == b"again"
    world.pump.refresh(session.number, now(-0.001))
    session.send(channel_data(0x4000, b"abc"))
    await world.dropped(Drop.EXPIRED, 3)


async def test_an_unbound_channel(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session = world.session()
    session.permit("127.0.0.1")
    session.send(channel_data(0x4000, b"abc"))
    await world.dropped(Drop.NO_CHANNEL)


async def test_an_expired_channel_gives_way_to_indications(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address, offset=-0.001)
    session.send(channel_data(0x4000, b"abc"))
    await world.dropped(Drop.EXPIRED)
    peer.send(b"abc", session.relayed)
    assert read_from_relay(await session.receive()) == (peer.address, b"abc")
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"again"))
    assert (await peer.receive())[0] == b"again"
    peer.send(b"again", session.relayed)
    assert await session.receive() == channel_data(0x4000, b"again")


async def test_an_expired_channel_number_can_be_bound_to_another_peer(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, old, new = world.session(), world.endpoint(), world.endpoint()
    session.permit("127.0.0.1")
    session.bind(0x4000, old.address, offset=-0.001)
    session.bind(0x4000, new.address)
    session.send(channel_data(0x4000, b"abc"))
    assert (await new.receive())[0] == b"abc"
    new.send(b"new", session.relayed)
    assert await session.receive() == channel_data(0x4000, b"new")
    old.send(b"old", session.relayed)
    assert read_from_relay(await session.receive()) == (old.address, b"old")


async def test_a_peer_whose_channel_expired_can_have_another(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit("127.0.0.1")
    session.bind(0x4000, peer.address, offset=-0.001)
    session.bind(0x4001, peer.address)
    peer.send(b"abc", session.relayed)
    assert await session.receive() == channel_data(0x4001, b"abc")
    session.send(channel_data(0x4000, b"abc"))
    totals = await world.settled()
    assert totals.drops[Drop.EXPIRED] + totals.drops[Drop.NO_CHANNEL] == 1


async def test_more_permissions_or_channels_than_allowed_are_refused(pump_factory: PumpFactory) -> None:
    world = pump_factory(replace(SETTINGS, max_permissions=2, max_channels=2))
    session = world.session()
    for number in (1, 2):
        session.permit(f"127.0.0.{number}")
        session.bind(0x4000 + number, Address("127.0.0.1", number))
    session.permit("127.0.0.2")
    session.bind(0x4002, Address("127.0.0.1", 2))
    with pytest.raises(RuntimeError):
        session.permit("127.0.0.3")
    with pytest.raises(RuntimeError):
        session.bind(0x4003, Address("127.0.0.1", 3))


async def test_what_has_expired_makes_room(pump_factory: PumpFactory) -> None:
    world = pump_factory(replace(SETTINGS, max_permissions=1, max_channels=1))
    session, peer = world.session(), world.endpoint()
    session.permit("127.9.9.9", offset=-0.001)
    session.bind(0x4000, Address("127.9.9.9", 9), offset=-0.001)
    session.permit("127.0.0.1")
    session.bind(0x4001, peer.address)
    session.send(channel_data(0x4001, b"abc"))
    assert (await peer.receive())[0] == b"abc"


async def test_a_peer_is_the_same_in_every_spelling(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(Family.IPV6), world.endpoint("::1")
    session.permit("0:0:0::0:1")
    session.bind(0x4000, Address("0::1", peer.address.port))
    peer.send(b"abc", session.relayed)
    assert await session.receive() == channel_data(0x4000, b"abc")


async def test_unknown_sessions_are_fine(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    world.pump.refresh(4711, now(60))
    world.pump.permit(4711, "127.0.0.1", now(60))
    world.pump.bind_channel(4711, 0x4000, Address("127.0.0.1", 9), now(60))
    world.pump.release(b"unknown!")
    assert world.pump.close(4711) == Counters()
    assert world.pump.counters(4711) == Counters()
