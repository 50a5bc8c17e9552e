"""Opening and closing: families, ports, reservations, bounds."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import (
    LOOPBACK,
    SETTINGS,
    channel_data,
    free_ports,
    private_loopback,
    read_from_relay,
    send_indication,
)
from turnsvr.relay.api import Opened, PumpSettings, RelayAddress, RelayFailure
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

BOTH = (Family.IPV4, Family.IPV6)
TOKEN = b"8 bytes!"


def _few_ports(count: int) -> PumpSettings:
    host = private_loopback()
    return replace(SETTINGS, relay_addresses=(RelayAddress(host, host),), ports=free_ports(host, count))


def _client(number: int) -> FiveTuple:
    return FiveTuple(Transport.TCP, Address("127.0.0.1", number), Address("127.0.0.1", 3478))


class TestFamilies:
    async def test_addresses_come_in_the_order_asked_for(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        for families in (BOTH, BOTH[::-1]):
            opened = world.session(families=families).opened
            assert [address.family for address in opened.addresses] == list(families)
            assert [address.host for address in opened.addresses] == [LOOPBACK[family] for family in families]
            assert opened.failures == {}

    async def test_a_dual_session_relays_for_both(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session = world.session(families=BOTH)
        for number, relayed in enumerate(session.opened.addresses):
            peer = world.endpoint(LOOPBACK[relayed.family])
            session.permit(peer.address.host)
            session.bind(0x4000 + number, peer.address)
            session.send(channel_data(0x4000 + number, b"abc"))
            assert await peer.receive() == (b"abc", relayed)
            peer.send(b"def", relayed)
            assert await session.receive() == channel_data(0x4000 + number, b"def")

    async def test_a_family_that_is_not_served(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, relay_addresses=SETTINGS.relay_addresses[:1]))
        opened = world.session(families=BOTH).opened
        assert [address.family for address in opened.addresses] == [Family.IPV4]
        assert opened.failures == {Family.IPV6: RelayFailure.FAMILY}
        assert world.session(families=(Family.IPV6,)).opened == Opened((), {Family.IPV6: RelayFailure.FAMILY})

    async def test_closing_one_family_leaves_the_other(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session = world.session(families=BOTH)
        peers = {family: world.endpoint(LOOPBACK[family]) for family in BOTH}
        for number, peer in enumerate(peers.values()):
            session.permit(peer.address.host)
            session.bind(0x4000 + number, peer.address)
        world.pump.close(session.number, Family.IPV4)
        session.send(channel_data(0x4001, b"abc"))
        assert (await peers[Family.IPV6].receive())[0] == b"abc"
        session.send(channel_data(0x4000, b"abc"))
        await world.dropped(Drop.NO_CHANNEL)
        session.send(send_indication(peers[Family.IPV4].address, b"abc").encode())
        totals = await world.settled()
        assert totals.drops[Drop.NO_PERMISSION] == 1
        assert not peers[Family.IPV4].waiting()
        assert _can_bind(session.opened.addresses[0])
        assert world.pump.close(session.number, Family.IPV6) == Counters(1, 3, 0, 0, 2)
        assert world.pump.counters(session.number) == Counters()

    async def test_closing_a_family_that_it_has_not(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        world.pump.close(session.number, Family.IPV6)
        peer.send(b"abc", session.relayed)
        assert read_from_relay(await session.receive())[1] == b"abc"


class TestClose:
    async def test_gives_the_counters_and_the_port_back(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        session.bind(0x4000, peer.address)
        session.send(channel_data(0x4000, b"abc"))
        await world.settled()
        assert world.pump.close(session.number) == Counters(1, 3, 0, 0, 0)
        assert world.pump.close(session.number) == Counters()
        assert _can_bind(session.relayed)
        session.send(channel_data(0x4000, b"abc"))
        await world.dropped(Drop.NO_SESSION)
        assert world.pump.totals().relayed == Counters(1, 3, 0, 0, 0)

    async def test_the_client_may_open_another(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        first, peer = world.session(), world.endpoint()
        first.permit(peer.address.host)
        world.pump.close(first.number)
        number, opened = world.open(first.five_tuple, (Family.IPV4,))
        assert number != first.number
        peer.send(b"abc", opened.addresses[0])
        await world.dropped(Drop.NO_PERMISSION)


class TestPorts:
    async def test_they_lie_in_the_range_and_differ(self, pump_factory: PumpFactory) -> None:
        settings = _few_ports(64)
        world = pump_factory(settings)
        ports = [world.open(_client(n), (Family.IPV4,))[1].addresses[0].port for n in range(20)]
        assert len(set(ports)) == 20
        assert all(settings.ports[0] <= port <= settings.ports[1] for port in ports)
        assert ports != sorted(ports)

    async def test_every_port_is_used_before_capacity_runs_out(self, pump_factory: PumpFactory) -> None:
        settings = _few_ports(16)
        world = pump_factory(settings)
        opened = [world.open(_client(n), (Family.IPV4,))[1] for n in range(16)]
        low, high = settings.ports
        assert {each.addresses[0].port for each in opened} == set(range(low, high + 1))
        _, refused = world.open(_client(16), (Family.IPV4,))
        assert refused == Opened((), {Family.IPV4: RelayFailure.CAPACITY})
        world.pump.close(7)
        assert world.open(_client(16), (Family.IPV4,))[1] == opened[6]

    async def test_ports_that_another_program_has_are_passed_over(self, pump_factory: PumpFactory) -> None:
        settings = _few_ports(8)
        world, host = pump_factory(settings), settings.relay_addresses[0].host
        low, high = settings.ports
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((host, low + 3))
            ports = {world.open(_client(n), (Family.IPV4,))[1].addresses[0].port for n in range(7)}
            assert ports == set(range(low, high + 1)) - {low + 3}
            assert not world.open(_client(7), (Family.IPV4,))[1].addresses
        assert world.open(_client(7), (Family.IPV4,))[1].addresses[0].port == low + 3

    async def test_even_ports(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(_few_ports(8))
        ports = [world.open(_client(n), (Family.IPV4,), even_port=True)[1].addresses[0].port for n in range(4)]
        assert all(port % 2 == 0 for port in ports)
        assert not world.open(_client(4), (Family.IPV4,), even_port=True)[1].addresses
        assert world.open(_client(4), (Family.IPV4,))[1].addresses[0].port % 2 == 1

    async def test_the_address_that_the_client_talks_to_relays(self, pump_factory: PumpFactory) -> None:
        hosts = [private_loopback() for _ in range(3)]
        relays = (*(RelayAddress(host, host) for host in hosts), RelayAddress("127.0.0.1", "203.0.113.7"))
        world = pump_factory(replace(SETTINGS, relay_addresses=relays))
        for number, host in enumerate((hosts[1], hosts[2], hosts[1], "127.0.0.1", "203.0.113.7")):
            client = FiveTuple(Transport.TCP, Address("127.0.0.1", 1 + number), Address(host, 3478))
            advertised = "203.0.113.7" if host == "127.0.0.1" else host
            assert world.open(client, (Family.IPV4,))[1].addresses[0].host == advertised

    async def test_else_the_relay_addresses_take_turns(self, pump_factory: PumpFactory) -> None:
        hosts = [private_loopback() for _ in range(3)]
        world = pump_factory(replace(SETTINGS, relay_addresses=tuple(RelayAddress(host, host) for host in hosts)))
        used = [world.open(_client(number), (Family.IPV4,))[1].addresses[0].host for number in range(6)]
        assert sorted(used[:3]) == sorted(used[3:]) == sorted(hosts)

    async def test_an_address_that_is_full_sends_to_the_next(self, pump_factory: PumpFactory) -> None:
        settings = _few_ports(2)
        other = RelayAddress("127.0.0.1", "127.0.0.1")
        world = pump_factory(replace(settings, relay_addresses=(*settings.relay_addresses, other)))
        server = Address(settings.relay_addresses[0].host, 3478)
        hosts = [
            world.open(FiveTuple(Transport.TCP, Address("127.0.0.1", 1 + n), server), (Family.IPV4,))[1]
            .addresses[0]
            .host
            for n in range(4)
        ]
        assert hosts == [server.host] * 2 + [other.host] * 2

    async def test_the_port_of_a_session_that_ended_rests(self, pump_factory: PumpFactory) -> None:
        """Its peers may go on sending, and the next session may permit them too."""
        settings = _few_ports(4)
        world, before = pump_factory(settings), Address("127.0.0.1", 0)
        for turn in range(20):
            number, opened = world.open(_client(turn), (Family.IPV4,))
            assert opened.addresses[0] != before
            before = opened.addresses[0]
            world.pump.close(number)
            world.pump.reconfigure(replace(settings, bandwidth=1_000.0 * turn))

    async def test_no_session_is_refused_because_ports_rest(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(_few_ports(4))
        for _ in range(3):
            first = [world.open(_client(n), (Family.IPV4,), even_port=True, reserve=bytes([n] * 8)) for n in (1, 2)]
            assert all(opened.addresses for _, opened in first)
            second = [world.open(_client(n), (Family.IPV4,), claim=bytes([n - 2] * 8)) for n in (3, 4)]
            assert all(opened.addresses for _, opened in second)
            for number, _ in (*first, *second):
                world.pump.close(number)

    async def test_an_address_that_is_not_this_hosts(self, pump_factory: PumpFactory) -> None:
        settings = replace(SETTINGS, relay_addresses=(RelayAddress("192.0.2.1", "192.0.2.1"),))
        world = pump_factory(settings)
        _, opened = world.open(_client(1), (Family.IPV4,))
        assert opened == Opened((), {Family.IPV4: RelayFailure.CAPACITY})

    async def test_no_more_sessions_than_allowed(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, max_sessions=2))
        sessions = [world.open(_client(n), (Family.IPV4,)) for n in range(3)]
        assert [len(opened.addresses) for _, opened in sessions] == [1, 1, 0]
        assert sessions[2][1].failures == {Family.IPV4: RelayFailure.CAPACITY}
        world.pump.close(sessions[0][0])
        assert world.open(_client(3), (Family.IPV4,))[1].addresses


class TestReservations:
    async def test_the_next_port_is_held_and_claimed(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        _, first = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
        port = first.addresses[0].port
        assert port % 2 == 0
        assert not _can_bind(Address("127.0.0.1", port + 1))
        number, second = world.open(_client(2), (Family.IPV4,), claim=TOKEN)
        assert second.addresses == (Address("127.0.0.1", port + 1),)
        _, third = world.open(_client(3), (Family.IPV4,), claim=TOKEN)
        assert third == Opened((), {Family.IPV4: RelayFailure.TOKEN})
        world.pump.close(number)
        assert _can_bind(second.addresses[0])

    async def test_a_claimed_port_relays(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        world.session(even_port=True, reserve=TOKEN)
        session, peer = world.session(claim=TOKEN), world.endpoint()
        session.permit(peer.address.host)
        peer.send(b"abc", session.relayed)
        assert read_from_relay(await session.receive()) == (peer.address, b"abc")

    async def test_what_came_while_it_was_held_is_for_nobody(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        _, first = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
        peer = world.endpoint()
        held = Address("127.0.0.1", first.addresses[0].port + 1)
        for _ in range(20):
            peer.socket.sendto(b"early", held)
        session = world.session(claim=TOKEN)
        session.permit(peer.address.host)
        peer.send(b"now", session.relayed)
        assert read_from_relay(await session.receive()) == (peer.address, b"now")
        assert (await world.settled()).drops[Drop.NO_PERMISSION] == 0

    async def test_release_gives_it_up(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        _, first = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
        held = Address("127.0.0.1", first.addresses[0].port + 1)
        world.pump.release(TOKEN)
        assert _can_bind(held)
        assert not world.open(_client(2), (Family.IPV4,), claim=TOKEN)[1].addresses

    async def test_it_outlives_the_session_that_made_it(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        number, first = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
        world.pump.close(number)
        assert world.open(_client(2), (Family.IPV4,), claim=TOKEN)[1].addresses[0].port == first.addresses[0].port + 1

    async def test_held_ports_are_given_to_nobody_else(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(_few_ports(4))
        _, first = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
        held = first.addresses[0].port + 1
        ports = [world.open(_client(n), (Family.IPV4,))[1].addresses for n in (2, 3, 4)]
        assert held not in [addresses[0].port for addresses in ports if addresses]
        assert [len(addresses) for addresses in ports] == [1, 1, 0]

    async def test_no_pair_left(self, pump_factory: PumpFactory) -> None:
        settings = _few_ports(4)
        world, host = pump_factory(settings), settings.relay_addresses[0].host
        low = settings.ports[0]
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            one.bind((host, low + 1))
            two.bind((host, low + 2))
            _, opened = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
            assert opened == Opened((), {Family.IPV4: RelayFailure.CAPACITY})
            assert not world.open(_client(1), (Family.IPV4,), claim=TOKEN)[1].addresses
            assert _can_bind(Address(host, low))

    async def test_the_held_port_lies_in_the_range_too(self, pump_factory: PumpFactory) -> None:
        settings = _few_ports(3)
        low, high = settings.ports
        world = pump_factory(settings)
        _, opened = world.open(_client(1), (Family.IPV4,), even_port=True, reserve=TOKEN)
        assert opened.addresses[0].port == low
        _, opened = world.open(_client(2), (Family.IPV4,), even_port=True, reserve=b"another!")
        assert opened == Opened((), {Family.IPV4: RelayFailure.CAPACITY})
        assert _can_bind(Address(settings.relay_addresses[0].host, high))

    async def test_an_unknown_token(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        _, opened = world.open(_client(1), (Family.IPV4,), claim=b"unknown!")
        assert opened == Opened((), {Family.IPV4: RelayFailure.TOKEN})


async def test_a_session_or_client_is_opened_once(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session = world.session()
    with pytest.raises(RuntimeError):
        world.open(session.five_tuple, (Family.IPV4,))


def _can_bind(address: Address) -> bool:
    with socket.socket(address.family.socket_family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(address)
        except OSError:
            return False
    return True
