"""Permissions for some ports of a host, and hosts of two names: a service beside the relay, behind one-to-one NAT."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.test_inside import BEHIND_NAT, EXTERNAL
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    Endpoint,
    Session,
    channel_data,
    private_loopback,
    read_from_relay,
    send_indication,
)
from turnsvr.ranges import EVERY_PORT, NO_PORT, Ports
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family

families = pytest.mark.parametrize("family", FAMILIES)


def only(*peers: Endpoint) -> Ports:
    return tuple(sorted((peer.address.port, peer.address.port) for peer in peers))


def outside(peer: Endpoint) -> Address:
    """The name that one-to-one NAT gives to a peer on loopback."""
    return Address(EXTERNAL[peer.address.family], peer.address.port)


def send(session: Session, peer: Address, data: bytes) -> None:
    session.send(send_indication(peer, data).encode())


@families
async def test_the_ports_of_a_permission_hold_for_sending_and_for_channels(
    pump_factory: PumpFactory, family: Family
) -> None:
    world = pump_factory()
    session = world.session(family)
    named, another, closed = (world.endpoint(LOOPBACK[family]) for _ in range(3))
    session.permit(named.address.host, ports=only(named, another))
    session.bind(0x4000, named.address)
    session.bind(0x4001, closed.address)
    session.send(channel_data(0x4000, b"one"))
    assert (await named.receive())[0] == b"one"
    send(session, another.address, b"two")
    assert (await another.receive())[0] == b"two"
    send(session, closed.address, b"three")
    session.send(channel_data(0x4001, b"four"))
    await world.dropped(Drop.FENCED, 2)
    world.pump.send_to_peer(session.number, closed.address, b"five", dont_fragment=False)
    await world.until(lambda: world.pump.totals().drops[Drop.FENCED] == 3)
    assert world.pump.counters(session.number).dropped == 3
    assert not closed.waiting()


async def test_the_handler_hears_once_a_permission_of_what_went_nowhere(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    one, other = world.session(), world.session()
    peer = world.endpoint()
    for session in (one, other):
        session.permit(peer.address.host, ports=NO_PORT)
        for _ in range(3):
            send(session, peer.address, b"x")
    send(one, Address(peer.address.host, 1), b"x")
    await world.dropped(Drop.FENCED, 7)
    await world.until(lambda: len(world.notes.fenced) == 2)
    assert sorted(world.notes.fenced) == sorted((each.number, peer.address) for each in (one, other))
    one.permit(peer.address.host, ports=NO_PORT)
    send(one, peer.address, b"x")
    await world.dropped(Drop.FENCED, 8)
    assert len(world.notes.fenced) == 2


async def test_nothing_comes_from_another_port(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, named, another = world.session(), world.endpoint(), world.endpoint()
    session.permit(named.address.host, ports=only(named))
    another.send(b"no", session.relayed)
    await world.dropped(Drop.NO_PERMISSION)
    named.send(b"yes", session.relayed)
    assert read_from_relay(await session.receive()) == (named.address, b"yes")


async def test_permitting_again_changes_the_ports(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    for ports, reached in ((NO_PORT, False), (only(peer), True), (((1, 2), (3, 4)), False), (EVERY_PORT, True)):
        session.permit(peer.address.host, ports=ports)
        send(session, peer.address, b"x")
        await world.settled()
        assert [each == b"x" for each in peer.waiting()] == [True] * reached
    assert (await world.settled()).drops[Drop.FENCED] == 2


async def test_ports_do_not_make_more_permissions(pump_factory: PumpFactory) -> None:
    world = pump_factory(PumpSettings(BEHIND_NAT.relay_addresses, max_permissions=1))
    session = world.session()
    for ports in (NO_PORT, ((1, 2),), EVERY_PORT, NO_PORT):
        session.permit("127.0.0.1", ports=ports)
    with pytest.raises(RuntimeError):
        session.permit("127.0.0.2")


# Two names


@families
async def test_the_external_address_stands_for_the_host_behind_it(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(EXTERNAL[family], ports=only(service))
    send(session, outside(service), b"ask")
    data, sender = await service.receive()
    assert (data, sender) == (b"ask", Address(LOOPBACK[family], session.relayed.port))
    service.send(b"answer", sender)
    assert read_from_relay(await session.receive()) == (outside(service), b"answer")
    session.bind(0x4000, outside(service))
    session.send(channel_data(0x4000, b"by a channel"))
    assert (await service.receive())[0] == b"by a channel"
    service.send(b"and back", sender)
    assert await session.receive() == channel_data(0x4000, b"and back")


@families
async def test_by_its_own_address_it_is_that_address(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(LOOPBACK[family], ports=only(service))
    send(session, service.address, b"ask")
    _, sender = await service.receive()
    service.send(b"answer", sender)
    assert read_from_relay(await session.receive()) == (service.address, b"answer")


async def test_of_both_names_the_one_last_sent_to_counts(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(), world.endpoint()
    for host in (LOOPBACK[Family.IPV4], EXTERNAL[Family.IPV4]):
        session.permit(host, ports=only(service))
    for name in (outside(service), service.address, outside(service)):
        send(session, name, b"ask")
        _, sender = await service.receive()
        for _ in range(2):
            service.send(b"answer", sender)
            assert read_from_relay(await session.receive()) == (name, b"answer")


async def test_each_port_is_called_as_it_was_last(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, one, other = world.session(), world.endpoint(), world.endpoint()
    for host in (LOOPBACK[Family.IPV4], EXTERNAL[Family.IPV4]):
        session.permit(host, ports=only(one, other))
    session.bind(0x4000, outside(one))
    session.send(channel_data(0x4000, b"ask"))
    _, sender = await one.receive()
    send(session, other.address, b"ask")
    await other.receive()
    one.send(b"answer", sender)
    assert await session.receive() == channel_data(0x4000, b"answer")
    other.send(b"answer", sender)
    assert read_from_relay(await session.receive()) == (other.address, b"answer")


async def test_who_was_not_called_has_the_external_name(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(), world.endpoint()
    for host in (LOOPBACK[Family.IPV4], EXTERNAL[Family.IPV4]):
        session.permit(host)
    service.send(b"hello", Address(LOOPBACK[Family.IPV4], session.relayed.port))
    assert read_from_relay(await session.receive()) == (outside(service), b"hello")


async def test_a_permission_that_is_over_gives_no_name(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(), world.endpoint()
    inner = Address(LOOPBACK[Family.IPV4], session.relayed.port)
    session.permit(EXTERNAL[Family.IPV4], -1.0)
    session.permit(LOOPBACK[Family.IPV4])
    service.send(b"one", inner)
    assert read_from_relay(await session.receive()) == (service.address, b"one")
    session.permit(EXTERNAL[Family.IPV4])
    session.permit(LOOPBACK[Family.IPV4], -1.0)
    service.send(b"two", inner)
    assert read_from_relay(await session.receive()) == (outside(service), b"two")


async def test_a_session_reaches_the_host_of_another_relay(pump_factory: PumpFactory) -> None:
    """Of several relay addresses each has an external one, and the session's own is not the peer's."""
    other = private_loopback()
    relays = (RelayAddress("127.0.0.1", "203.0.113.7"), RelayAddress(other, "203.0.113.8"))
    world = pump_factory(PumpSettings(relays))
    service = world.endpoint(other)
    name = Address("203.0.113.8", service.address.port)
    for _ in relays:
        session = world.session()
        session.permit(name.host, ports=only(service))
        send(session, name, b"ask")
        _, sender = await service.receive()
        service.send(b"answer", sender)
        assert read_from_relay(await session.receive()) == (name, b"answer")


async def test_what_goes_nowhere_never_leaves(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(), world.endpoint()
    session.permit(EXTERNAL[Family.IPV4], ports=((1, 1),))
    sends = world.pump.totals().segments
    send(session, outside(service), b"x")
    await world.dropped(Drop.FENCED)
    assert world.pump.totals().segments == sends
    assert not service.waiting()


async def test_errors_name_the_peer_as_the_client_does(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, gone = world.session(), world.endpoint()
    gone.socket.close()
    session.permit(EXTERNAL[Family.IPV4])
    await world.until(lambda: _told(session, outside(gone), world.notes.errors))
    assert {error.peer for error in world.notes.errors} == {outside(gone)}


def _told(session: Session, peer: Address, errors: Sequence[object]) -> bool:
    if not errors:
        send(session, peer, b"anybody there?")
    return bool(errors)


async def test_new_settings_change_the_names(pump_factory: PumpFactory) -> None:
    world = pump_factory(BEHIND_NAT)
    session, service = world.session(), world.endpoint()
    world.pump.reconfigure(PumpSettings((RelayAddress("127.0.0.1", "203.0.113.9"),)))
    session.permit("203.0.113.9")
    name = Address("203.0.113.9", service.address.port)
    send(session, name, b"ask")
    _, sender = await service.receive()
    service.send(b"answer", sender)
    assert read_from_relay(await session.receive()) == (name, b"answer")
    world.pump.reconfigure(PumpSettings((RelayAddress("127.0.0.1", "127.0.0.1"),)))
    session.permit(service.address.host)
    service.send(b"again", sender)
    assert read_from_relay(await session.receive()) == (service.address, b"again")
