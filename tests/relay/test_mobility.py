"""Sessions whose clients move (RFC 8016): to other ports, families, transports and threads, and what is lost by it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import count

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    SETTINGS,
    Endpoint,
    Session,
    World,
    channel_data,
    now,
    read_from_relay,
    request,
    send_indication,
)
from turnsvr.relay.api import PumpSettings
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

CHANNEL = 0x4000
LANES = replace(SETTINGS, threads=4)
"""So many that most moves are from one thread to another."""
_numbers = count(1)


class Mover:
    """The Handler's part: moves a session as soon as it sees data from where it is expected."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self.seen: list[bytes] = []
        world.notes.client_messages = self.client_messages  # type: ignore[method-assign]

    def client_messages(self, batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        for five_tuple, data in batch:
            self.seen.append(data)
            self._world.pump.move(self._number, five_tuple)
        return ()


class Stream:
    """An attached client without a session."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.five_tuple = FiveTuple(
            Transport.TCP, Address("127.0.0.1", 50_000), Address("127.0.0.1", 5349), next(_numbers)
        )
        self.written: list[bytes] = []
        self.frames: list[bytes] = []
        world.pump.attach(self.five_tuple, self._write, self._resume)

    def _write(self, frame: bytes) -> bool:
        self.written.append(frame)
        return True

    def _resume(self) -> None:
        del self.frames[: self._world.pump.relay(self.five_tuple, self.frames)]

    def send(self, *frames: bytes) -> None:
        self._world.sent += len(frames)
        self.frames += frames
        self._resume()

    async def receive(self) -> bytes:
        await self._world.until(lambda: bool(self.written))
        return self.written.pop(0)


def opened(world: World, family: Family = Family.IPV4) -> tuple[Session, Endpoint]:
    """A session with a channel to a peer."""
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(LOOPBACK[family])
    session.bind(CHANNEL, peer.address)
    return session, peer


def elsewhere(world: World, session: Session, family: Family = Family.IPV4) -> tuple[Endpoint, FiveTuple]:
    client = world.endpoint(LOOPBACK[family])
    return client, FiveTuple(Transport.UDP, client.address, world.listeners[family])


@pytest.mark.parametrize("settings", [SETTINGS, LANES], ids=["one thread", "four threads"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_a_client_moves_to_other_ports(pump_factory: PumpFactory, family: Family, settings: PumpSettings) -> None:
    world = pump_factory(settings)
    session, peer = opened(world, family)
    for turn in range(12):
        client, five_tuple = elsewhere(world, session, family)
        world.pump.move(session.number, five_tuple)
        client.send(channel_data(CHANNEL, b"from %d" % turn), five_tuple.server)
        assert await peer.receive() == (b"from %d" % turn, session.relayed)
        peer.send(b"to %d" % turn, session.relayed)
        assert read_from_relay((await client.receive())[0]) == (CHANNEL, b"to %d" % turn)
    totals = await world.settled()
    assert (totals.relayed.packets_from_client, totals.relayed.packets_to_client) == (12, 12)
    assert world.pump.counters(session.number).packets_from_client == 12, "figures go along"


async def test_who_has_moved_is_served_no_more_where_it_was(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session, peer = opened(world)
    world.pump.move(session.number, elsewhere(world, session)[1])
    session.send(channel_data(CHANNEL, b"late"))
    await world.dropped(Drop.NO_SESSION)
    assert not peer.waiting()


@pytest.mark.parametrize("settings", [SETTINGS, LANES], ids=["one thread", "four threads"])
async def test_data_from_where_it_is_expected_are_seen_first_and_none_is_lost(
    pump_factory: PumpFactory, settings: PumpSettings
) -> None:
    world = pump_factory(settings)
    session, peer = opened(world)
    client, five_tuple = elsewhere(world, session)
    mover = Mover(world, session.number)
    world.pump.expect(five_tuple, True)
    peer.send(b"to the old place", session.relayed)
    assert read_from_relay(await session.receive()) == (CHANNEL, b"to the old place")
    for at in range(20):
        client.send(channel_data(CHANNEL, b"%d" % at), five_tuple.server)
    for at in range(1, 20):
        assert await peer.receive() == (b"%d" % at, session.relayed), "in order, and behind the first"
    assert mover.seen == [channel_data(CHANNEL, b"0")], "which is the Handler's to relay"
    peer.send(b"to the new place", session.relayed)
    assert read_from_relay((await client.receive())[0]) == (CHANNEL, b"to the new place")
    await world.settled()


async def test_who_is_expected_no_more_is_a_stranger(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session, _ = opened(world)
    client, five_tuple = elsewhere(world, session)
    world.pump.expect(five_tuple, True)
    world.pump.expect(five_tuple, True)
    world.pump.expect(five_tuple, False)
    world.pump.expect(five_tuple, False)
    client.send(channel_data(CHANNEL, b"data"), five_tuple.server)
    await world.dropped(Drop.NO_SESSION)
    assert not world.notes.messages


async def test_what_peers_send_while_it_moves_arrives(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session, peer = opened(world)
    clients = [session.endpoint]
    for turn in range(40):
        peer.send(b"%d" % turn, session.relayed)
        client, five_tuple = elsewhere(world, session)
        clients.append(client)
        world.pump.move(session.number, five_tuple)
    await world.settled()
    arrived = [data for client in clients for data in client.waiting()]
    assert sorted(arrived) == sorted(channel_data(CHANNEL, b"%d" % turn) for turn in range(40))


@pytest.mark.parametrize("settings", [SETTINGS, LANES], ids=["one thread", "four threads"])
async def test_a_client_moves_to_a_stream_and_back(pump_factory: PumpFactory, settings: PumpSettings) -> None:
    world = pump_factory(settings)
    session, peer = opened(world)
    stream = Stream(world)
    mover = Mover(world, session.number)
    world.pump.expect(stream.five_tuple, True)
    stream.send(*(channel_data(CHANNEL, b"%d000" % at) for at in range(3)))
    assert [(await peer.receive())[0] for _ in range(2)] == [b"1000", b"2000"]
    assert mover.seen == [channel_data(CHANNEL, b"0000")]
    peer.send(b"odd", session.relayed)
    assert await stream.receive() == channel_data(CHANNEL, b"odd", b"\0"), "streams have padding"
    client, five_tuple = elsewhere(world, session)
    world.pump.move(session.number, five_tuple)
    peer.send(b"odd", session.relayed)
    assert (await client.receive())[0] == channel_data(CHANNEL, b"odd"), "datagrams have none"
    world.pump.detach(stream.five_tuple)
    client.send(channel_data(CHANNEL, b"back"), five_tuple.server)
    assert (await peer.receive())[0] == b"back"
    await world.settled()


async def test_a_client_without_its_connection_waits(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session, peer = opened(world)
    stream = Stream(world)
    world.pump.move(session.number, stream.five_tuple)
    world.pump.detach(stream.five_tuple)
    peer.send(b"nobody", session.relayed)
    await world.dropped(Drop.SEND_FAILED)
    client, five_tuple = elsewhere(world, session)
    world.pump.move(session.number, five_tuple)
    peer.send(b"somebody", session.relayed)
    assert read_from_relay((await client.receive())[0]) == (CHANNEL, b"somebody")


async def test_sessions_that_have_moved_reach_each_other(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    one, other = world.session(), world.session()
    for session, peer in ((one, other), (other, one)):
        session.permit(LOOPBACK[Family.IPV4])
        session.bind(CHANNEL, peer.relayed)
    for _ in range(6):
        (first, at_first), (second, at_second) = (elsewhere(world, session) for session in (one, other))
        world.pump.move(one.number, at_first)
        world.pump.move(other.number, at_second)
        first.send(channel_data(CHANNEL, b"inside"), at_first.server)
        assert read_from_relay((await second.receive())[0]) == (CHANNEL, b"inside")
        second.send(channel_data(CHANNEL, b"and back"), at_second.server)
        assert read_from_relay((await first.receive())[0]) == (CHANNEL, b"and back")
    await world.settled(inside=12)


async def test_what_waits_of_a_client_goes_on_where_it_has_moved(pump_factory: PumpFactory) -> None:
    """Data behind a message from the new place are relayed once the Handler is done with it."""
    world = pump_factory(LANES)
    session, peer = opened(world)
    client, five_tuple = elsewhere(world, session)
    Mover(world, session.number)
    message = request().encode()
    client.send(message, five_tuple.server)
    client.send(channel_data(CHANNEL, b"behind"), five_tuple.server)
    assert (await peer.receive())[0] == b"behind"
    await world.settled()


async def test_a_moved_session_ends_like_any_other(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session, peer = opened(world)
    client, five_tuple = elsewhere(world, session)
    world.pump.move(session.number, five_tuple)
    client.send(send_indication(peer.address, b"data").encode(), five_tuple.server)
    assert (await peer.receive())[0] == b"data"
    assert world.pump.close(session.number).packets_from_client == 1
    client.send(channel_data(CHANNEL, b"late"), five_tuple.server)
    await world.dropped(Drop.NO_SESSION)
    world.pump.move(session.number, five_tuple)
    other, _ = world.open(five_tuple, (Family.IPV4,))
    assert world.pump.counters(other).packets_from_client == 0


async def test_nobody_moves_to_where_another_one_is(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session, other = opened(world)[0], opened(world)[0]
    for five_tuple in (other.five_tuple, session.five_tuple):
        with pytest.raises(RuntimeError, match="another one is open"):
            world.pump.move(session.number, five_tuple)
    world.pump.move(99, other.five_tuple)


async def test_a_session_of_two_families_moves_with_both(pump_factory: PumpFactory) -> None:
    world = pump_factory(LANES)
    session = world.session(families=(Family.IPV4, Family.IPV6))
    client, five_tuple = elsewhere(world, session, Family.IPV6)
    world.pump.move(session.number, five_tuple)
    for relayed in session.opened.addresses:
        peer = world.endpoint(LOOPBACK[relayed.family])
        world.pump.permit(session.number, peer.address.host, now(60))
        peer.send(b"data", relayed)
        assert read_from_relay((await client.receive())[0]) == (peer.address, b"data")
