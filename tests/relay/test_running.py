"""Rates, figures, new settings, and the end."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from dataclasses import replace

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import (
    LOOPBACK,
    SETTINGS,
    World,
    channel_data,
    free_ports,
    private_loopback,
    request,
    send_indication,
    whereabouts,
)
from turnsvr import relay
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.message import Class, Message, Method

BINDING = Message(Method.BINDING, Class.REQUEST, bytes(12)).encode()


class TestBandwidth:
    """A packet of one second's worth, then nothing for most of that second."""

    async def test_is_bounded_each_way_on_its_own(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, bandwidth=30_000))
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        session.bind(0x4000, peer.address)
        data = bytes(30_000)
        for _ in range(2):
            session.send(channel_data(0x4000, data))
            peer.send(data, session.relayed)
        await world.dropped(Drop.BANDWIDTH, 2)
        assert world.pump.counters(session.number) == Counters(1, 30_000, 1, 30_000, 2)

    async def test_of_one_session_is_not_anothers(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, bandwidth=30_000))
        peer = world.endpoint()
        for _ in range(3):
            session = world.session()
            session.permit(peer.address.host)
            session.send(send_indication(peer.address, bytes(30_000)).encode())
            await peer.receive()

    async def test_of_a_sessions_own_comes_before_that_of_the_settings(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, bandwidth=30_000))
        session, peer = world.session(bandwidth=100.0), world.endpoint()
        session.permit(peer.address.host)
        session.bind(0x4000, peer.address)
        for data in (bytes(101), bytes(100)):
            session.send(channel_data(0x4000, data))
            peer.send(data, session.relayed)
        await world.dropped(Drop.BANDWIDTH, 2)
        assert world.pump.counters(session.number) == Counters(1, 100, 1, 100, 2)

    async def test_of_a_session_may_be_without_limit(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, bandwidth=100))
        session, peer = world.session(bandwidth=0.0), world.endpoint()
        session.permit(peer.address.host)
        session.send(send_indication(peer.address, bytes(30_000)).encode())
        await peer.receive()

    async def test_of_a_sessions_own_outlives_new_settings(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(SETTINGS)
        limited, free, other = world.session(bandwidth=100.0), world.session(bandwidth=0.0), world.session()
        peer = world.endpoint()
        world.pump.reconfigure(replace(SETTINGS, bandwidth=200))
        for session in (limited, free, other):
            session.permit(peer.address.host)
            session.send(send_indication(peer.address, bytes(150)).encode())
            session.send(send_indication(peer.address, bytes(201)).encode())
        await world.dropped(Drop.BANDWIDTH, 3)
        assert [world.pump.counters(each.number).packets_from_client for each in (limited, free, other)] == [0, 2, 1]

    async def test_can_change_under_a_live_session(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        world.pump.reconfigure(replace(SETTINGS, bandwidth=100))
        session.send(send_indication(peer.address, bytes(101)).encode())
        await world.dropped(Drop.BANDWIDTH)
        world.pump.reconfigure(SETTINGS)
        session.send(send_indication(peer.address, bytes(101)).encode())
        await peer.receive()


class TestFigures:
    async def test_received_is_what_was_relayed_answered_sent_up_and_dropped(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, answers_per_address=1))
        session, peer, stranger = world.session(), world.endpoint(), world.endpoint(private_loopback())
        session.permit("127.0.0.1")
        session.bind(0x4000, peer.address)
        for _ in range(20):
            session.send(channel_data(0x4000, b"abc"))
            session.send(channel_data(0x4001, b"abc"))
            session.send(b"\xff")
            session.send(BINDING)
            session.send(request().encode())
            peer.send(b"abc", session.relayed)
            stranger.send(b"abc", session.relayed)
            stranger.send(channel_data(0x4000, b"abc"), session.five_tuple.server)
        totals = await world.settled()
        assert totals.received == whereabouts(totals) == 160
        assert totals.relayed == Counters(20, 60, 20, 60, totals.relayed.dropped)
        assert totals.sent_up == 20
        assert totals.drops[Drop.NO_CHANNEL] == totals.drops[Drop.NO_SESSION] == totals.drops[Drop.NO_PERMISSION] == 20
        assert totals.drops[Drop.RATE_LIMITED] + totals.binding_answers == 20
        assert 0 < totals.batches <= totals.received
        assert totals.segments == 40 + totals.binding_answers
        assert 0 < totals.sends <= totals.segments

    async def test_sessions_that_ended_are_included(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        peer = world.endpoint()
        for number in range(1, 4):
            session = world.session()
            session.permit(peer.address.host)
            session.send(send_indication(peer.address, bytes(number)).encode())
            await peer.receive()
            await world.settled()
            assert world.pump.close(session.number) == Counters(1, number, 0, 0, 0)
        assert world.pump.totals().relayed == Counters(3, 6, 0, 0, 0)


class TestReconfigure:
    async def test_addresses_and_ports_hold_for_new_sessions(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        old, peer = world.session(), world.endpoint()
        old.permit(peer.address.host)
        host = private_loopback()
        ports = free_ports(host, 2)
        world.pump.reconfigure(replace(SETTINGS, relay_addresses=(RelayAddress(host, host),), ports=ports))
        new = [world.session() for _ in range(3)]
        assert {address for each in new for address in each.opened.addresses} == {Address(host, port) for port in ports}
        peer.send(b"abc", old.relayed)
        await old.receive()

    async def test_ports_in_use_stay_in_use(self, pump_factory: PumpFactory) -> None:
        host = private_loopback()
        low, high = free_ports(host, 4)
        settings = replace(SETTINGS, relay_addresses=(RelayAddress(host, host),), ports=(low, high))
        world = pump_factory(settings)
        first = world.session(even_port=True, reserve=b"8 bytes!")
        world.pump.reconfigure(replace(settings, bandwidth=1e6))
        rest = [world.session() for _ in range(3)]
        assert [len(each.opened.addresses) for each in rest] == [1, 1, 0]
        world.pump.close(first.number)
        world.pump.release(b"8 bytes!")
        assert {world.session().relayed.port, world.session().relayed.port} == {
            first.relayed.port,
            first.relayed.port + 1,
        }

    async def test_the_limit_of_answers(self, pump_factory: PumpFactory) -> None:
        world = pump_factory(replace(SETTINGS, answers_per_address=0.001))
        client = world.endpoint()
        for _ in range(2):
            client.send(BINDING, world.listeners[Family.IPV4])
        await world.until(lambda: world.pump.totals().drops[Drop.RATE_LIMITED] == 1)
        world.pump.reconfigure(replace(SETTINGS, answers_per_address=0))
        for _ in range(3):
            client.send(BINDING, world.listeners[Family.IPV4])
        totals = await world.settled()
        assert totals.binding_answers == 4


class TestShutdown:
    @pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")
    async def test_leaves_no_descriptor(self, pump_kind: PumpKind) -> None:
        gc.collect()
        before = _descriptors()
        world = World(pump_kind)
        stream = FiveTuple(Transport.TCP, Address("127.0.0.1", 9), Address("127.0.0.1", 3478))
        world.pump.attach(stream, lambda frame: True, lambda: None)
        world.open(stream, (Family.IPV4, Family.IPV6))
        for number in range(10):
            world.session(even_port=True, reserve=bytes([number] * 8))
        world.pump.listen(Address("0.0.0.0", 0))
        assert len(_descriptors()) > len(before) + 30
        world.end()
        await asyncio.sleep(0)
        assert _descriptors() == before

    async def test_no_handler_call_comes_after_it(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        client, gone = world.endpoint(), world.endpoint()
        session = world.session()
        gone.socket.close()
        session.permit("127.0.0.1")
        world.pump.send_to_peer(session.number, gone.address, b"abc", dont_fragment=False)
        client.send(request().encode(), world.listeners[Family.IPV4])
        world.pump.shutdown()
        before = (list(world.notes.batches), list(world.notes.errors))
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert (world.notes.batches, world.notes.errors) == before

    async def test_twice_is_once(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        world.session()
        world.pump.shutdown()
        world.pump.shutdown()


async def test_sessions_by_the_hundred(pump_factory: PumpFactory) -> None:
    world = pump_factory(replace(SETTINGS, max_sessions=300))
    peer = world.endpoint()
    for number in range(300):
        client = FiveTuple(Transport.TCP, Address(LOOPBACK[Family.IPV4], 1 + number), Address("127.0.0.1", 3478))
        world.pump.attach(client, lambda frame: True, lambda: None)
        session, opened = world.open(client, (Family.IPV4,))
        world.pump.permit(session, "127.0.0.1", asyncio.get_running_loop().time() + 60)
        peer.send(b"abc", opened.addresses[0])
    totals = await world.settled()
    assert totals.relayed.packets_to_client == 300


class TestChoice:
    async def test_portable_by_name(self) -> None:
        with_notes = World("portable")
        assert with_notes.pump.name == "portable"
        with_notes.end()

    async def test_auto_takes_what_describe_says(self) -> None:
        world = World("auto")
        assert relay.describe().startswith(world.pump.name)
        world.end()

    async def test_a_compiled_pump_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "turnsvr.relay.compiled.pump", None)
        assert relay.describe().startswith("portable (no compiled pump: ")
        with pytest.raises(relay.PumpUnavailable, match="the compiled pump cannot be loaded"):
            World("compiled")
        world = World("auto")
        assert world.pump.name == "portable"
        world.end()

    async def test_settings_have_usable_defaults(self, pump_factory: PumpFactory) -> None:
        assert pump_factory(PumpSettings()).session().opened.failures


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))
