"""Binding answers, what goes up, and which address a client talked to."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import FAMILIES, LOOPBACK, SETTINGS, channel_data, private_loopback, request
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.attributes import MAPPED_ADDRESS, SOFTWARE, XOR_MAPPED_ADDRESS
from turnsvr.stun.message import Class, Message, Method

families = pytest.mark.parametrize("family", FAMILIES)
needs_packet_info = pytest.mark.skipif(sys.platform != "linux", reason="no packet info on this system")

BINDING = Message(Method.BINDING, Class.REQUEST, bytes(range(12))).encode()


@families
async def test_a_plain_binding_request_is_answered(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    client, server = world.endpoint(LOOPBACK[family]), world.listeners[family]
    client.send(BINDING, server)
    data, sender = await client.receive()
    answer = Message.parse(data)
    assert sender == server
    assert (answer.method, answer.message_class) == (Method.BINDING, Class.SUCCESS)
    assert answer.transaction_id == bytes(range(12))
    assert answer.numbers() == [XOR_MAPPED_ADDRESS.number]
    assert answer.get(XOR_MAPPED_ADDRESS) == client.address
    assert (await world.settled()).binding_answers == 1
    assert not world.notes.messages


@families
async def test_the_suffix_follows(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    suffix = Message(Method.BINDING, Class.SUCCESS, bytes(12)).add(SOFTWARE, "the pump").encode()[20:]
    server = world.pump.listen(Address(LOOPBACK[family], 0), binding_suffix=suffix)
    client = world.endpoint(LOOPBACK[family])
    client.send(BINDING, server)
    answer = Message.parse((await client.receive())[0])
    assert answer.numbers() == [XOR_MAPPED_ADDRESS.number, SOFTWARE.number]
    assert answer.get(SOFTWARE) == "the pump"
    assert answer.get(XOR_MAPPED_ADDRESS) == client.address


@families
async def test_the_mapped_address_stands_before_the_suffix(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    suffix = Message(Method.BINDING, Class.SUCCESS, bytes(12)).add(SOFTWARE, "the pump").encode()[20:]
    server = world.pump.listen(Address(LOOPBACK[family], 0), binding_suffix=suffix, mapped_address=True)
    client = world.endpoint(LOOPBACK[family])
    client.send(BINDING, server)
    answer = Message.parse((await client.receive())[0])
    assert answer.numbers() == [XOR_MAPPED_ADDRESS.number, MAPPED_ADDRESS.number, SOFTWARE.number]
    assert answer.get(MAPPED_ADDRESS) == answer.get(XOR_MAPPED_ADDRESS) == client.address


async def test_binding_answers_are_limited_for_each_address(pump_factory: PumpFactory) -> None:
    world = pump_factory(replace(SETTINGS, answers_per_address=0.001))
    server = world.pump.listen(Address("127.0.0.1", 0))
    same_host, other = (world.endpoint(), world.endpoint()), world.endpoint(private_loopback())
    for client in (*same_host, *same_host, other):
        client.send(BINDING, server)
    totals = await world.settled()
    assert totals.binding_answers == 2
    assert totals.drops[Drop.RATE_LIMITED] == 3
    assert len((await other.receive())[0]) == 32


async def test_no_limit_on_binding_answers(pump_factory: PumpFactory) -> None:
    world = pump_factory(replace(SETTINGS, answers_per_address=0))
    client = world.endpoint()
    for _ in range(300):
        client.send(BINDING, world.listeners[Family.IPV4])
        await client.receive()
    assert (await world.settled()).binding_answers == 300


async def test_everything_else_goes_up_in_order(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    client, server = world.endpoint(), world.listeners[Family.IPV4]
    messages = [
        request().encode(),
        Message(Method.BINDING, Class.REQUEST, bytes(12)).add(SOFTWARE, "x").encode(),
        Message(Method.BINDING, Class.INDICATION, bytes(12)).encode(),
        Message(Method.BINDING, Class.REQUEST, bytes(12)).encode(fingerprint=True),
        Message(Method.BINDING, Class.REQUEST, bytes(16)).encode(),
        request(Method.REFRESH).encode(key=b"key"),
        request(0xABC).encode(),
        b"\x3f\xff\x00\x00" + bytes(16),
    ]
    for message in messages:
        client.send(message, server)
    await world.until(lambda: len(world.notes.messages) == len(messages))
    five_tuple = FiveTuple(Transport.UDP, client.address, server)
    assert world.notes.messages == [(five_tuple, message) for message in messages]
    got, _ = world.notes.messages[0]
    assert isinstance(got, FiveTuple)
    assert isinstance(got.client, Address)
    assert isinstance(got.server, Address)
    assert (await world.settled()).sent_up == len(messages)


async def test_messages_that_wait_go_up_in_batches(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    for client in [world.endpoint() for _ in range(200)]:
        client.send(request().encode(), world.listeners[Family.IPV4])
    await world.until(lambda: len(world.notes.messages) == 200)
    assert len(world.notes.batches) < 200
    assert all(world.notes.batches)


IMPOSSIBLE = [
    b"",
    b"\x00",
    b"\x00\x01\x00\x00",
    b"\x80" + BINDING[1:],
    b"\xff" * 40,
    BINDING[:-1],
    BINDING + b"\0",
    BINDING[:2] + b"\x00\x04" + BINDING[4:],
    BINDING[:2] + b"\xff\xff" + BINDING[4:],
    request().encode() + bytes(4),
    b"\x40",
    b"\x40\x00\x00",
    b"\x40\x00\x00\x01",
    b"\x40\x00\xff\xffabc",
    b"\x7f\xff\x00\x04abc",
]


@pytest.mark.parametrize("datagram", IMPOSSIBLE, ids=lambda datagram: datagram[:8].hex() or "empty")
async def test_impossible_messages_are_dropped(pump_factory: PumpFactory, datagram: bytes) -> None:
    world = pump_factory()
    session = world.session()
    session.send(datagram)
    world.endpoint().send(datagram, session.five_tuple.server)
    await world.dropped(Drop.MALFORMED, 2)
    assert not world.notes.messages


async def test_channel_data_of_strangers_is_dropped(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    world.endpoint().send(channel_data(0x4000, b"abc"), world.listeners[Family.IPV4])
    await world.dropped(Drop.NO_SESSION)


@families
async def test_send_answers_from_the_listener(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    client, server = world.endpoint(LOOPBACK[family]), world.listeners[family]
    world.pump.send(FiveTuple(Transport.UDP, client.address, server), b"an answer")
    assert await client.receive() == (b"an answer", server)


@needs_packet_info
async def test_a_wildcard_listener_knows_and_keeps_the_address_a_client_chose(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    port = world.pump.listen(Address("0.0.0.0", 0)).port
    client, chosen = world.endpoint(), private_loopback()
    for host in (chosen, "127.0.0.1", chosen):
        server = Address(host, port)
        client.send(BINDING, server)
        assert (await client.receive())[1] == server
        client.send(request().encode(), server)
        await world.until(lambda: bool(world.notes.batches))
        five_tuple = FiveTuple(Transport.UDP, client.address, server)
        assert [source for source, _ in world.notes.batches.pop()] == [five_tuple]
        world.pump.send(five_tuple, b"answer")
        assert await client.receive() == (b"answer", server)


@needs_packet_info
@families
async def test_a_session_through_a_wildcard_listener(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    port = world.pump.listen(Address("0.0.0.0" if family is Family.IPV4 else "::", 0)).port
    server = Address(private_loopback() if family is Family.IPV4 else "::1", port)
    session, peer = world.session(family, server=server), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"up"))
    assert (await peer.receive())[0] == b"up"
    peer.send(b"down", session.relayed)
    assert await session.endpoint.receive() == (channel_data(0x4000, b"down"), server)


@needs_packet_info
async def test_the_server_address_is_part_of_the_five_tuple(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    port = world.pump.listen(Address("0.0.0.0", 0)).port
    session = world.session(server=Address("127.0.0.1", port))
    session.permit("127.0.0.1")
    session.bind(0x4000, world.endpoint().address)
    session.endpoint.send(channel_data(0x4000, b"abc"), Address(private_loopback(), port))
    await world.dropped(Drop.NO_SESSION)


async def test_ipv6_listeners_leave_ipv4_to_others(pump_factory: PumpFactory) -> None:
    world, host = pump_factory(), private_loopback()
    port = world.pump.listen(Address("::", 0)).port
    assert world.pump.listen(Address(host, port)) == Address(host, port)


async def test_an_address_in_use_is_an_error(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    with pytest.raises(OSError, match="in use"):
        world.pump.listen(world.endpoint().address)


async def test_the_handler_may_use_the_pump(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    echoed = asyncio.Event()

    def echo(batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        for five_tuple, data in batch:
            world.pump.send(five_tuple, data)
        echoed.set()
        return ()

    world.notes.client_messages = echo  # type: ignore[method-assign]
    client, message = world.endpoint(), request().encode()
    client.send(message, world.listeners[Family.IPV4])
    assert (await client.receive())[0] == message
    assert echoed.is_set()
