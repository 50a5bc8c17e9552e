"""Sessions that move from one pump to another while their packets pass; every kind of pump gives and takes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.relay.world import FAMILIES, LOOPBACK, SETTINGS, Notes, Session, World, channel_data, now, request
from turnsvr import relay
from turnsvr.plane import OpenRelay
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings, StreamWriter
from turnsvr.relay.counts import Counters
from turnsvr.relay.moving import MovablePump, SessionState
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.framing import pack_channel_data

CHANNEL = 0x4001


class Move:
    """A world, and the pump that its sessions move to."""

    def __init__(self, world: World, taker_kind: PumpKind, settings: PumpSettings) -> None:
        self.world = world
        self.giver: MovablePump = world.pump
        self.notes = Notes()
        self.taker = relay.make(settings, self.notes, taker_kind, is_armed=False)
        self.states: dict[int, SessionState] = {}
        self.streams: list[FiveTuple] = []

    def give(self, *sessions: Session, stays: tuple[int, ...] = ()) -> None:
        """All but the moment itself, with what the rules would say of these sessions: one channel to one peer."""
        self.giver.freeze()
        belongings = self.giver.belongings(stays)
        for address, group in belongings.listeners.items():
            self.taker.listen(address, descriptors=[os.dup(each) for each in group])
        for session in sessions:
            state = belongings.sessions[session.number]
            families = tuple(each.host.family for each in state.relays)
            self.taker.take(OpenRelay(session.number, session.five_tuple, families, now(60.0)), dup(state))
        for token, held in belongings.held.items():
            self.taker.hold(token, replace(held, descriptor=os.dup(held.descriptor)))
        for five_tuple, descriptor in belongings.streams.items():
            if self.taker.adopt(os.dup(descriptor), five_tuple, b""):
                self.streams.append(five_tuple)
        self.states = dict(belongings.sessions)

    def switch(self, stays: tuple[int, ...] = ()) -> dict[int, Counters]:
        """The moment, and what comes after it."""
        rest = self.giver.part(stays)
        for five_tuple, each in rest.streams.items():
            self.taker.feed(five_tuple, each)
        for five_tuple, datagrams in rest.waiting.items():
            for data in datagrams:
                self.taker.receive(five_tuple, data)
        self.taker.arm()
        last = self.giver.leave()
        for number, counters in last.items():
            self.taker.settle(number, difference(counters, self.states[number].counters))
        self.giver.thaw()
        return last


def dup(state: SessionState) -> SessionState:
    return replace(state, relays=tuple(replace(each, descriptor=os.dup(each.descriptor)) for each in state.relays))


def difference(late: Counters, early: Counters) -> Counters:
    names = Counters.__dataclass_fields__
    return Counters(**{name: getattr(late, name) - getattr(early, name) for name in names})


def writer(to: list[bytes]) -> StreamWriter:
    def write(frame: bytes) -> bool:
        to.append(frame)
        return True

    return write


@pytest.fixture(params=["portable", "compiled"])
def taker_kind(request: pytest.FixtureRequest, pump_kind: PumpKind) -> PumpKind:
    kind: PumpKind = request.param
    if kind == "compiled" and relay.describe().startswith("portable"):
        pytest.skip(relay.describe())
    return kind


@pytest.fixture(params=[(1, 1), (3, 1), (1, 3)], ids=["same", "fewer threads", "more threads"])
async def move(request: pytest.FixtureRequest, pump_kind: PumpKind, taker_kind: PumpKind) -> AsyncIterator[Move]:
    before, after = request.param
    world = World(pump_kind, replace(SETTINGS, threads=before))
    made = Move(world, taker_kind, replace(SETTINGS, threads=after))
    yield made
    made.taker.shutdown()
    world.end()


def bound(world: World, pump: MovablePump, session: Session, peer: Address) -> None:
    """What the rules say of a session, to either pump."""
    pump.permit(session.number, peer.host, now(60.0))
    pump.bind_channel(session.number, CHANNEL, peer, now(60.0))


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_session_goes_on_both_ways_with_its_counters(move: Move, family: Family) -> None:
    world = move.world
    sessions = [world.session(family) for _ in range(5)]
    peer = world.endpoint(LOOPBACK[family])
    for each in sessions:
        bound(world, move.giver, each, peer.address)
        each.send(channel_data(CHANNEL, b"before"))
        assert (await peer.receive())[1] == each.relayed
    move.give(*sessions)
    for each in sessions:
        bound(world, move.taker, each, peer.address)
        each.send(channel_data(CHANNEL, b"between"))  # the giver still relays
        assert await peer.receive() == (b"between", each.relayed)
    last = move.switch()
    for each in sessions:
        assert last[each.number] == Counters(2, len(b"before" + b"between"), 0, 0, 0)
        each.send(channel_data(CHANNEL, b"after"))
        assert await peer.receive() == (b"after", each.relayed)
        peer.send(b"back", each.relayed)
        assert await each.receive() == channel_data(CHANNEL, b"back")
        expected = Counters(3, len(b"before" + b"between" + b"after"), 1, 4, 0)
        await world.until(lambda: move.taker.counters(each.number) == expected)  # noqa: B023 - awaited here
        assert move.giver.counters(each.number) == Counters()
    assert move.giver.totals().relayed == Counters()


async def test_what_waits_in_the_sockets_is_read_once_by_the_taker(move: Move) -> None:
    world = move.world
    session, peer = world.session(), world.endpoint()
    bound(world, move.giver, session, peer.address)
    move.give(session)
    bound(world, move.taker, session, peer.address)
    move.giver.part(())
    for at in range(20):
        session.send(channel_data(CHANNEL, b"up%d" % at))
        peer.send(b"down%d" % at, session.relayed)
    await asyncio.sleep(0.05)  # time in which the giver might do what it must not
    assert peer.waiting() == []
    assert session.endpoint.waiting() == []
    move.taker.arm()
    move.giver.leave()
    assert [(await peer.receive())[0] for _ in range(20)] == [b"up%d" % at for at in range(20)]
    assert [await session.receive() for _ in range(20)] == [channel_data(CHANNEL, b"down%d" % at) for at in range(20)]


async def test_a_giver_goes_on_when_the_taker_is_gone(move: Move) -> None:
    world = move.world
    session, peer = world.session(), world.endpoint()
    bound(world, move.giver, session, peer.address)
    move.give(session)
    move.giver.part(())
    session.send(channel_data(CHANNEL, b"up"))
    peer.send(b"down", session.relayed)
    await asyncio.sleep(0.02)  # so that a lane meets what is not its own any more
    move.taker.shutdown()
    move.giver.rejoin()
    move.giver.thaw()
    assert (await peer.receive())[0] == b"up"
    assert await session.receive() == channel_data(CHANNEL, b"down")
    session.send(request().encode())
    await world.until(lambda: len(world.notes.messages) == 1)


async def test_messages_wait_while_frozen_and_move(move: Move) -> None:
    world = move.world
    session, stranger = world.session(), world.endpoint()
    asked, other = request().encode(), request().encode()
    move.give(session)
    session.send(asked)
    stranger.send(other, world.listeners[Family.IPV4])
    await world.until(lambda: move.giver.totals().waiting == 2)
    assert world.notes.messages == []
    move.switch()
    await world.until(lambda: len(move.notes.messages) == 2)
    of_stranger = FiveTuple(Transport.UDP, stranger.address, world.listeners[Family.IPV4])
    assert sorted(move.notes.messages) == sorted([(session.five_tuple, asked), (of_stranger, other)])
    assert world.notes.messages == []


async def test_what_cannot_be_judged_yet_moves_before_what_came_behind_it(move: Move) -> None:
    world = move.world
    session, peer = world.session(), world.endpoint()
    keeps = [session.five_tuple]
    world.notes.client_messages = lambda batch: keeps  # type: ignore[method-assign]
    first, second = request().encode(), request().encode()
    session.send(first)
    session.send(channel_data(CHANNEL, b"early"))
    session.send(second)
    await world.until(lambda: move.giver.totals().received == 3)
    await asyncio.sleep(0.05)
    move.give(session)
    judged: list[bytes] = []

    def judge(batch: list[tuple[FiveTuple, bytes]]) -> tuple[()]:
        judged.extend(data for _, data in batch)
        bound(world, move.taker, session, peer.address)
        return ()

    move.notes.client_messages = judge  # type: ignore[method-assign,assignment]
    move.switch()
    assert (await peer.receive())[0] == b"early"
    await world.until(lambda: judged == [first, second])


async def test_a_session_that_stays_is_served_all_the_time(move: Move) -> None:
    world = move.world
    stays, moved, peer = world.session(), world.session(), world.endpoint()
    server = world.endpoint()
    five_tuple = FiveTuple(Transport.TLS, Address("127.0.0.1", 999), server.address, 1)
    number, opened = world.open(five_tuple, (Family.IPV4,))
    got: list[bytes] = []
    move.giver.attach(five_tuple, writer(got), lambda: None)
    move.giver.permit(number, peer.address.host, now(60.0))
    move.giver.close(stays.number)
    move.give(moved, stays=(number,))
    move.giver.part((number,))
    peer.send(b"while parted", opened.addresses[0])
    await world.until(lambda: len(got) == 1)
    move.taker.arm()
    assert set(move.giver.leave()) == {moved.number}
    move.giver.thaw()
    peer.send(b"later", opened.addresses[0])
    await world.until(lambda: len(got) == 2)
    frame = pack_channel_data(CHANNEL, b"out", padded=True)
    move.giver.bind_channel(number, CHANNEL, peer.address, now(60.0))
    assert move.giver.relay(five_tuple, [frame]) == 1
    assert await peer.receive() == (b"out", opened.addresses[0])
    move.giver.detach(five_tuple)


async def test_sessions_of_two_pumps_reach_each_other_though_no_port_of_the_host_is_open(move: Move) -> None:
    world = move.world
    moved, service = world.session(), world.endpoint()
    five_tuple = FiveTuple(Transport.TLS, Address("127.0.0.1", 999), Address("127.0.0.1", 5349), 1)
    number, opened = world.open(five_tuple, (Family.IPV4,))
    got: list[bytes] = []
    move.giver.attach(five_tuple, writer(got), lambda: None)
    relayed = opened.addresses[0]
    move.giver.permit(number, "127.0.0.1", now(60.0), ())
    move.giver.bind_channel(number, CHANNEL, moved.relayed, now(60.0))
    move.give(moved, stays=(number,))
    move.taker.permit(moved.number, "127.0.0.1", now(60.0), ())
    move.taker.bind_channel(moved.number, CHANNEL, relayed, now(60.0))
    move.taker.know(relayed, True)
    move.switch((number,))
    moved.send(channel_data(CHANNEL, b"to him who stayed"))
    await world.until(lambda: len(got) == 1)
    assert got[0].startswith(CHANNEL.to_bytes(2, "big"))
    move.giver.relay(five_tuple, [pack_channel_data(CHANNEL, b"to him who moved", padded=True)])
    assert await moved.receive() == channel_data(CHANNEL, b"to him who moved")
    move.taker.bind_channel(moved.number, CHANNEL + 1, service.address, now(60.0))
    moved.send(channel_data(CHANNEL + 1, b"to a service of this host"))
    await world.until(lambda: move.notes.fenced == [(moved.number, service.address)])
    move.taker.know(relayed, False)
    moved.send(channel_data(CHANNEL, b"to nobody now"))
    await world.until(lambda: move.taker.counters(moved.number).dropped == 2)
    move.giver.detach(five_tuple)


async def test_a_move_gives_no_bandwidth_away(pump_kind: PumpKind, taker_kind: PumpKind) -> None:
    settings = replace(SETTINGS, bandwidth=1000.0)
    world = World(pump_kind, settings)
    move = Move(world, taker_kind, settings)
    try:
        session, peer = world.session(), world.endpoint()
        bound(world, move.giver, session, peer.address)
        session.send(channel_data(CHANNEL, bytes(500)))
        await peer.receive()
        move.give(session)
        bound(world, move.taker, session, peer.address)
        session.send(channel_data(CHANNEL, bytes(450)))
        await peer.receive()
        move.switch()
        session.send(channel_data(CHANNEL, bytes(700)))  # a full bucket would let it pass
        await world.until(lambda: move.taker.counters(session.number).dropped == 1)
    finally:
        move.taker.shutdown()
        world.end()


async def test_a_held_port_is_claimed_from_the_taker(move: Move) -> None:
    world = move.world
    token = bytes(8)
    pair = world.session(even_port=True, reserve=token)
    move.give(pair)
    move.switch()
    five_tuple = FiveTuple(Transport.UDP, Address("127.0.0.1", 999), world.listeners[Family.IPV4])
    opened = move.taker.open(OpenRelay(1000, five_tuple, (Family.IPV4,), now(60.0), claim=token))
    assert opened.addresses == (Address("127.0.0.1", pair.relayed.port + 1),)


@pytest.mark.parametrize("cut", [0, 3, 10, 27])
async def test_a_connection_moves_with_half_a_frame_and_what_is_to_be_sent(move: Move, cut: int) -> None:
    if move.giver.name == "portable" or move.taker.name == "portable":
        pytest.skip("this pump adopts no connection")
    world = move.world
    peer = world.endpoint()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    connected, _ = listener.accept()
    connected.setblocking(False)
    five_tuple = FiveTuple(Transport.TCP, Address(*client.getsockname()), Address(*listener.getsockname()), 7)
    number, opened = world.open(five_tuple, (Family.IPV4,))
    session = Session(world, number, peer, five_tuple, opened)
    assert move.giver.adopt(connected.detach(), five_tuple, b"")
    bound(world, move.giver, session, peer.address)
    frame = pack_channel_data(CHANNEL, b"a frame in two parts....", padded=True)
    client.sendall(frame[:cut])
    await asyncio.sleep(0.05)
    client.setblocking(False)
    while move.giver.counters(number).dropped == 0:  # until the socket, and the pump's own buffer, are full
        peer.send(bytes(1000), opened.addresses[0])
        await asyncio.sleep(0)
    before = None
    while before != (before := move.giver.totals()):  # noqa: ASYNC110 - what waits in the relay's socket arrives
        await asyncio.sleep(0.05)
    move.give(session)
    bound(world, move.taker, session, peer.address)
    move.switch()
    client.sendall(frame[cut:])
    assert (await peer.receive())[0] == b"a frame in two parts...."
    relayed = move.taker.counters(number).packets_to_client
    got = b""
    while len(got) < relayed * 1004:
        async with asyncio.timeout(10):
            got += await asyncio.get_running_loop().sock_recv(client, 1 << 20)
    assert got == pack_channel_data(CHANNEL, bytes(1000), padded=True) * relayed
    move.taker.hang_up(five_tuple)
    client.close()
    listener.close()


async def test_a_message_that_waits_on_a_connection_moves_first(move: Move) -> None:
    if move.giver.name == "portable" or move.taker.name == "portable":
        pytest.skip("this pump adopts no connection")
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    connected, _ = listener.accept()
    connected.setblocking(False)
    five_tuple = FiveTuple(Transport.TCP, Address(*client.getsockname()), Address(*listener.getsockname()), 7)
    world = move.world
    world.notes.client_messages = lambda batch: [five_tuple]  # type: ignore[method-assign]
    assert move.giver.adopt(connected.detach(), five_tuple, b"")
    first, second = request().encode(), request().encode()
    client.sendall(first + second + first[:9])
    await world.until(lambda: move.giver.totals().sent_up == 1)
    move.give()
    move.switch()
    client.sendall(first[9:])
    await world.until(lambda: move.notes.messages == [(five_tuple, first), (five_tuple, second), (five_tuple, first)])
    move.taker.hang_up(five_tuple)
    client.close()
    listener.close()


def test_no_descriptor_is_lost() -> None:
    """What a taker was given is closed with it, and a giver closes its own when it leaves."""

    async def run() -> int:
        world = World("auto")
        move = Move(world, "auto", SETTINGS)
        before = len(os.listdir("/proc/self/fd"))
        sessions = [world.session() for _ in range(3)]
        move.give(*sessions)
        move.switch()
        for each in sessions:
            move.taker.close(each.number)
            each.endpoint.socket.close()
        after = len(os.listdir("/proc/self/fd"))
        move.taker.shutdown()
        world.end()
        return after - before

    assert asyncio.run(run()) == 0
