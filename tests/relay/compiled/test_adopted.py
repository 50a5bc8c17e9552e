"""TCP and TLS clients that the pump serves itself: framing, relaying, bounded output, and the end."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.stream_client import Contexts, StreamClient, client_context, server_context
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    SETTINGS,
    World,
    channel_data,
    now,
    read_from_relay,
    request,
    send_indication,
)
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.api import PumpSettings
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.attributes import SOFTWARE

BUFFER = 65_536


Connect = Callable[..., StreamClient]


@pytest.fixture(params=["tcp", "tls"])
async def connect(request: pytest.FixtureRequest, certificate: TlsFiles) -> AsyncIterator[Connect]:
    clients: list[StreamClient] = []
    tls = None
    if request.param == "tls":
        tls = Contexts(server_context(certificate.certificate, certificate.key), client_context())

    def make(world: World, *args: Family, first: bytes = b"", session: bool = True) -> StreamClient:
        clients.append(StreamClient(world, *args, first=first, session=session, tls=tls))
        return clients[-1]

    yield make
    for client in clients:
        client.socket.close()


def padded(channel: int, data: bytes) -> bytes:
    return channel_data(channel, data, bytes(-len(data) % 4))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 1402, 1403, 65_000])
async def test_channel_data_both_ways(make_world: WorldFactory, connect: Connect, family: Family, size: int) -> None:
    world = make_world()
    client, peer = connect(world, family), world.endpoint(LOOPBACK[family])
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    data = bytes(at % 251 for at in range(size))
    await client.send(padded(0x4000, data))
    assert await peer.receive() == (data, client.relayed)
    peer.send(data, client.relayed)
    assert await client.read() == padded(0x4000, data)
    totals = await world.settled()
    assert (totals.relayed.bytes_from_client, totals.relayed.bytes_to_client) == (size, size)


@pytest.mark.parametrize("family", FAMILIES)
async def test_indications_both_ways(make_world: WorldFactory, connect: Connect, family: Family) -> None:
    world = make_world()
    client, peer = connect(world, family), world.endpoint(LOOPBACK[family])
    await client.send(send_indication(peer.address, b"abcde").encode())
    assert await peer.receive() == (b"abcde", client.relayed)
    peer.send(b"fghijkl", client.relayed)
    assert read_from_relay(await client.read()) == (peer.address, b"fghijkl")


@pytest.mark.parametrize("step", [1, 3, 19, 1000, 100_000])
async def test_a_stream_may_come_in_any_pieces(make_world: WorldFactory, connect: Connect, step: int) -> None:
    world = make_world()
    client, peer = connect(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    plain = request().encode()
    frames = [padded(0x4000, bytes([number]) * number * 9) for number in range(20)]
    frames[7:7] = [plain, send_indication(peer.address, b"direct").encode()]
    stream = b"".join(frames)
    for at in range(0, len(stream), step):
        await client.send(stream[at : at + step], 0)
        await asyncio.sleep(0)
    world.sent += len(frames)
    got = [(await peer.receive())[0] for _ in range(21)]
    assert [data for data in got if data != b"direct"] == [bytes([number]) * number * 9 for number in range(20)]
    await world.until(lambda: bool(world.notes.messages))
    assert world.notes.messages == [(client.five_tuple, plain)]
    await world.settled()


async def test_what_was_read_before_comes_first(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    message, other = request().encode(), request().add(SOFTWARE, "other").encode()
    client = connect(world, first=message + other[:7], session=False)
    world.sent += 2
    await client.send(other[7:], 0)
    await world.until(lambda: len(world.notes.messages) == 2)
    assert world.notes.messages == [(client.five_tuple, message), (client.five_tuple, other)]
    await world.settled()


async def test_a_first_read_may_be_large(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    message = request().add(SOFTWARE, "s" * 700).encode()
    count = 500_000 // len(message)
    connect(world, first=message * count, session=False)
    world.sent += count
    await world.settled()
    await world.until(lambda: len(world.notes.messages) == count)


async def test_answers(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client = connect(world, session=False)
    answers = [request().add(SOFTWARE, "s" * number).encode() for number in range(50)]
    for answer in answers:
        world.pump.send(client.five_tuple, answer)
    assert [await client.read() for _ in answers] == answers


@pytest.mark.parametrize(
    "garbage", [b"\x80\x00\x00\x00", b"\x00\x01\x00\x03" + bytes(16), b"\x00\x03\x00\x00\x21\x12\xa4\x43"]
)
async def test_what_is_no_frame_ends_the_connection(make_world: WorldFactory, connect: Connect, garbage: bytes) -> None:
    world = make_world()
    client = connect(world)
    message = request().encode()
    await client.send(message + garbage, 1)
    assert await client.is_closed()
    assert world.notes.closed == [(client.five_tuple, "malformed frame")]
    assert world.notes.messages == [(client.five_tuple, message)]
    assert world.pump.counters(client.number).dropped == 0
    world.pump.send(client.five_tuple, message)
    assert world.pump.totals().drops[Drop.SEND_FAILED] == 1


async def test_the_client_goes(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client, peer = connect(world), world.endpoint()
    client.socket.close()
    await world.until(lambda: bool(world.notes.closed))
    assert world.notes.closed == [(client.five_tuple, "closed by the client")]
    peer.send(b"abc", client.relayed)
    await world.dropped(Drop.SEND_FAILED)
    assert world.pump.close(client.number).dropped == 1


async def test_hang_up(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client = connect(world)
    world.pump.hang_up(client.five_tuple)
    world.pump.hang_up(client.five_tuple)
    assert await client.is_closed()
    await asyncio.sleep(0.01)
    assert not world.notes.closed
    world.pump.close(client.number)


async def test_hang_up_while_the_end_is_on_its_way(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    clients = [connect(world) for _ in range(20)]
    for client in clients:
        client.socket.close()
    for client in clients[::2]:
        world.pump.hang_up(client.five_tuple)
    await world.until(lambda: len(world.notes.closed) >= 10)
    assert {five_tuple for five_tuple, _ in world.notes.closed} == {client.five_tuple for client in clients[1::2]}


async def test_a_slow_client_loses_whole_frames_and_no_more(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world(replace(SETTINGS, stream_buffer=BUFFER))
    client, peer = connect(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    count = 0
    while not world.pump.totals().drops[Drop.SLOW_CLIENT]:
        for _ in range(5):
            peer.send(count.to_bytes(4, "big") * 2_001, client.relayed)
            count += 1
        await world.settled()
    relayed = world.pump.counters(client.number).packets_to_client
    got = [await client.read() for _ in range(relayed)]
    assert all(frame == padded(0x4000, frame[4:8] * 2_001) for frame in got)
    assert got == sorted(got)
    peer.send(b"after", client.relayed)
    assert await client.read() == padded(0x4000, b"after")
    assert relayed < count


async def test_a_client_that_closes_while_its_output_waits(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world(PumpSettings(SETTINGS.relay_addresses, stream_buffer=BUFFER))
    client, peer = connect(world), world.endpoint()
    while not world.pump.totals().drops[Drop.SLOW_CLIENT]:
        for _ in range(5):
            peer.send(bytes(8_000), client.relayed)
        await world.settled()
    client.socket.close()
    await world.until(lambda: bool(world.notes.closed))
    peer.send(bytes(8_000), client.relayed)
    totals = await world.settled()
    assert totals.drops[Drop.SEND_FAILED] == 1


async def test_from_stream_to_stream(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    one, other = connect(world), connect(world)
    world.pump.bind_channel(one.number, 0x4000, other.relayed, now(60))
    world.pump.bind_channel(other.number, 0x4001, one.relayed, now(60))
    for number in range(100):
        await one.send(padded(0x4000, bytes([number]) * number))
    assert [await other.read() for _ in range(100)] == [padded(0x4001, bytes([n]) * n) for n in range(100)]
    await world.settled(inside=100)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A connected client's end and server's end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        client.settimeout(10)
        return client, server.accept()[0]


def pause(seconds: float) -> None:
    """Let lanes work, and the loop not."""
    time.sleep(seconds)


def wait_received(world: World, count: int) -> None:
    """Until lanes have taken so many packets, none of which the loop hands on meanwhile."""
    until = time.monotonic() + 10
    while world.pump.totals().received < count:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("ended", [False, True], ids=["there", "ended"])
async def test_a_new_connection_ends_the_one_of_its_five_tuple_first(
    make_world: WorldFactory, connect: Connect, ended: bool
) -> None:
    """What the one before has said, and its end, wait for the loop when its place is taken."""
    world = make_world()
    client = connect(world, session=False)
    message = request().encode()
    client.socket.sendall(message if client.tls is None else client.tls.seal(message))
    wait_received(world, 1)
    if ended:
        client.socket.close()
        pause(0.02)
    replacement, served = tcp_pair()
    with replacement:
        assert world.pump.adopt(served.detach(), client.five_tuple, b"")
        assert world.notes.closed == [(client.five_tuple, "another connection took its place")]
        if not ended:
            assert await client.is_closed()
        world.pump.send(client.five_tuple, request().encode())
        assert len(replacement.recv(100)) == 20
        other = request().encode()
        replacement.sendall(other)
        await world.until(lambda: bool(world.notes.messages))
        assert world.notes.messages == [(client.five_tuple, other)]
        assert len(world.notes.closed) == 1


async def test_connections_at_the_same_addresses_are_two(make_world: WorldFactory, connect: Connect) -> None:
    """Neither the packets for the one before nor its late end are the new one's."""
    world = make_world()
    client, peer = connect(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    later = client.five_tuple._replace(connection=7)
    replacement, served = tcp_pair()
    with replacement:
        assert world.pump.adopt(served.detach(), later, b"")
        number, opened = world.open(later, (Family.IPV4,))
        world.pump.permit(number, peer.address.host, now(60))
        peer.send(b"for the first", client.relayed)
        assert await client.read() == padded(0x4000, b"for the first")
        client.socket.close()
        await world.until(lambda: bool(world.notes.closed))
        assert [five_tuple for five_tuple, _ in world.notes.closed] == [client.five_tuple]
        peer.send(b"for nobody", client.relayed)
        world.pump.send(client.five_tuple, request().encode())
        peer.send(b"for the second", opened.addresses[0])
        assert read_from_relay(replacement.recv(1000)) == (peer.address, b"for the second")


async def test_a_descriptor_that_is_no_socket_is_refused(make_world: WorldFactory) -> None:
    world = make_world()
    five_tuple = FiveTuple(Transport.TCP, Address("127.0.0.1", 1), Address("127.0.0.1", 2))
    reader, writer = os.pipe()
    assert not world.pump.adopt(reader, five_tuple, b"")
    os.close(reader)
    os.close(writer)


async def test_shutdown_closes_the_connections(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client = connect(world)
    world.pump.shutdown()
    assert await client.is_closed()
    assert not world.notes.closed
