"""Packets that arrive joined and leave joined: what the receiver sees is what it would have seen without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.trains import numbered, send_train
from tests.relay.world import FAMILIES, LOOPBACK, SETTINGS, channel_data, read_from_relay, send_indication
from turnsvr.relay.api import RelayAddress
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Family

ON_BOTH = replace(SETTINGS, relay_addresses=tuple(RelayAddress(host, host) for host in LOOPBACK.values()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("size", "last"), [(1000, None), (160, 40), (5, 3), (161, 160)])
async def test_channel_data_up(make_world: WorldFactory, family: Family, size: int, last: int | None) -> None:
    world = make_world()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(LOOPBACK[family])
    session.bind(0x4000, peer.address)
    payloads = numbered(16, size, last)
    send_train(world, session.endpoint, [channel_data(0x4000, data) for data in payloads], session.five_tuple.server)
    assert [await peer.receive() for _ in payloads] == [(data, session.relayed) for data in payloads]
    totals = await world.settled()
    assert totals.segments == 16
    assert totals.sends == totals.batches == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("size", "last"), [(1000, None), (160, 40), (5, 3), (161, 160)])
async def test_channel_data_down(make_world: WorldFactory, family: Family, size: int, last: int | None) -> None:
    world = make_world()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(LOOPBACK[family])
    session.bind(0x4001, peer.address)
    payloads = numbered(16, size, last)
    send_train(world, peer, payloads, session.relayed)
    assert [await session.receive() for _ in payloads] == [channel_data(0x4001, data) for data in payloads]
    totals = await world.settled()
    assert (totals.sends, totals.segments) == (1, 16)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [1000, 157, 3])
async def test_indications(make_world: WorldFactory, family: Family, size: int) -> None:
    world = make_world()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(LOOPBACK[family])
    payloads = numbered(8, size)
    frames = [send_indication(peer.address, data).encode() for data in payloads]
    send_train(world, session.endpoint, frames, session.five_tuple.server)
    assert [(await peer.receive())[0] for _ in payloads] == payloads
    send_train(world, peer, payloads, session.relayed)
    got = [read_from_relay(await session.receive()) for _ in payloads]
    assert got == [(peer.address, data) for data in payloads]
    assert (await world.settled()).sends == 2


async def test_a_train_may_go_to_several_peers(make_world: WorldFactory) -> None:
    world = make_world()
    session, peers = world.session(), [world.endpoint() for _ in range(3)]
    session.permit("127.0.0.1")
    for number, peer in enumerate(peers):
        session.bind(0x4000 + number, peer.address)
    payloads = numbered(30, 200)
    frames = [channel_data(0x4000 + number % 3, data) for number, data in enumerate(payloads)]
    send_train(world, session.endpoint, frames, session.five_tuple.server)
    for number, peer in enumerate(peers):
        assert [(await peer.receive())[0] for _ in range(10)] == payloads[number::3]
    assert (await world.settled()).segments == 30


async def test_what_is_not_covered_is_dropped_out_of_the_middle(make_world: WorldFactory) -> None:
    world = make_world()
    session, peer = world.session(), world.endpoint()
    session.permit("127.0.0.1")
    session.bind(0x4000, peer.address)
    frames = [channel_data(0x4000 + (number == 3), data) for number, data in enumerate(numbered(8, 100))]
    frames[5] = b"\xff" + frames[5][1:]
    send_train(world, session.endpoint, frames, session.five_tuple.server)
    got = [(await peer.receive())[0][1] for _ in range(6)]
    assert got == [0, 1, 2, 4, 6, 7]
    drops = (await world.settled()).drops
    assert (drops[Drop.NO_CHANNEL], drops[Drop.MALFORMED]) == (1, 1)


async def test_from_relay_to_relay(make_world: WorldFactory) -> None:
    world = make_world()
    one, other = world.session(), world.session()
    for session in (one, other):
        session.permit("127.0.0.1")
    one.bind(0x4000, other.relayed)
    other.bind(0x4007, one.relayed)
    payloads = numbered(16, 500, 77)
    send_train(world, one.endpoint, [channel_data(0x4000, data) for data in payloads], one.five_tuple.server)
    assert [await other.receive() for _ in payloads] == [channel_data(0x4007, data) for data in payloads]
    assert (await world.settled(inside=16)).sends == 1


@pytest.mark.parametrize("answers", [0.0, 100.0])
async def test_bindings(make_world: WorldFactory, answers: float) -> None:
    world = make_world(replace(SETTINGS, answers_per_address=answers))
    client = world.endpoint()
    requests = [b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes([number] * 12) for number in range(50)]
    send_train(world, client, requests, world.listeners[Family.IPV4])
    assert [(await client.receive())[0][8:20] for _ in requests] == [request[8:] for request in requests]
    assert (await world.settled()).binding_answers == 50


async def test_an_answer_is_counted_as_one_beside_data_to_the_same_client(make_world: WorldFactory) -> None:
    world = make_world()
    session = world.session()
    session.permit("127.0.0.1")
    train = [send_indication(session.relayed, bytes(100)).encode() for _ in range(4)]
    train.append(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12))
    send_train(world, session.endpoint, train, session.five_tuple.server)
    got = [await session.receive() for _ in train]
    assert [read_from_relay(frame) for frame in got[:4]] == [(session.relayed, bytes(100))] * 4
    assert got[4][:2] == b"\x01\x01"
    totals = await world.settled(inside=4)
    assert (totals.binding_answers, totals.relayed.packets_to_client) == (1, 4)


async def test_gso_switched_off(make_world: WorldFactory) -> None:
    world = make_world(replace(SETTINGS, gso=False))
    session, peer = world.session(), world.endpoint()
    session.permit("127.0.0.1")
    session.bind(0x4000, peer.address)
    payloads = numbered(16, 100)
    for frame in payloads:
        session.send(channel_data(0x4000, frame))
    assert [(await peer.receive())[0] for _ in payloads] == payloads
    for payload in payloads:
        peer.send(payload, session.relayed)
    assert [(await session.receive())[4:] for _ in payloads] == payloads
    await world.settled()


async def test_packets_that_came_one_by_one_leave_joined(make_world: WorldFactory) -> None:
    world = make_world()
    session, peer = world.session(), world.endpoint()
    session.permit("127.0.0.1")
    session.bind(0x4000, peer.address)
    rounds = 0
    while True:
        rounds += 1
        payloads = numbered(60, 300)
        for data in payloads:
            session.send(channel_data(0x4000, data))
        assert [(await peer.receive())[0] for _ in payloads] == payloads
        totals = await world.settled()
        # The pump may be as fast as the sender; it cannot stay so for long.
        if totals.sends < totals.segments:
            break
        assert rounds < 1000
