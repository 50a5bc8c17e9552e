"""TCP relaying (RFC 6062) as clients and peers meet it, over real sockets, with each pump, over TCP and TLS."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import PATIENCE
from tests.net.tcpworld import RESET, Peer, World, is_closed, is_over, read, read_all, receive, receive_all, send
from tests.net.test_streams import until
from turnsvr.client.link import StreamLink, new_request
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import PeerConnected
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family
from turnsvr.stun.message import Class, Method


@pytest.mark.parametrize("family", list(Family))
async def test_a_client_connects_to_a_peer_and_back(world: World, family: Family) -> None:
    await world.start()
    peer = Peer(world, "127.0.0.1" if family is Family.IPV4 else "::1")
    client = await world.allocated(family)
    connection = await client.connect(peer.address)
    accepted = await peer.accept()
    assert Address(*accepted.getpeername()[:2]) == client.relayed[0]
    stream = await world.bound(connection)
    await stream.write(b"from the client")
    assert await receive(accepted) == b"from the client"
    await send(accepted, b"from the peer")
    assert await read(stream, 13) == b"from the peer"
    number = next(iter(world.application.rooms.engine.server.allocations())).number
    counters = world.application.rooms.engine.pump.counters(number)
    assert (counters.bytes_from_client, counters.bytes_to_client) == (15, 13)


@pytest.mark.parametrize("family", list(Family))
async def test_a_permitted_peer_connects(world: World, family: Family) -> None:
    await world.start()
    client = await world.allocated(family)
    host = client.relayed[0].host
    await client.permit(Address(host, 0))
    peer = world.keep(socket.create_connection(client.relayed[0]))
    await send(peer, b"early")
    event = await asyncio.wait_for(client.receive(), PATIENCE)
    assert isinstance(event, PeerConnected)
    assert event.peer == Address(*peer.getsockname()[:2])
    stream = await world.bound(event.connection)
    assert await read(stream, 5) == b"early"
    await stream.write(b"late")
    assert await receive(peer) == b"late"


async def test_a_peer_without_a_permission_is_closed_at_once(world: World) -> None:
    await world.start()
    client = await world.allocated()
    peer = world.keep(socket.create_connection(client.relayed[0]))
    assert await is_closed(peer)
    assert world.connections == 0


async def test_data_behind_the_bind_request_goes_to_the_peer(world: World) -> None:
    """In the same write, whatever it looks like: another frame, half of one, or none at all."""
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    for rest in (
        b"\xff\xfeGET / HTTP/1.1",
        new_request(Method.BINDING).encode(),
        b"\x40\x01\x00\x04abcd\x40",
        b"\0",
        secrets.token_bytes(50_000),
    ):
        connection = await client.connect(peer.address)
        accepted = await peer.accept()
        data = await world.client()
        with pytest.raises(TransactionFailed):  # for its nonce, and what an answer to a challenge looks like
            await data.refresh()
        assert data.session is not None
        request = new_request(Method.CONNECTION_BIND).add(a.CONNECTION_ID, connection)
        link = data.link
        assert isinstance(link, StreamLink)
        link.expect_bind(True)
        signed = data.session.sign(request)
        answer = asyncio.create_task(link.exchange(signed + rest, request.transaction_id))
        response = await asyncio.wait_for(answer, PATIENCE)
        assert response.message.message_class is Class.SUCCESS
        got = b""
        while len(got) < len(rest):
            got += await receive(accepted)
        assert got == rest
        await send(accepted, b"answer")
        assert await read(link.raw(), 6) == b"answer"
        peer = Peer(world)


async def test_each_direction_ends_by_itself(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    accepted.shutdown(socket.SHUT_WR)
    if world.way == "tcp":
        assert await read_all(stream) == b""
        await stream.write(b"still")
        assert await receive(accepted) == b"still"
        stream.end()
    assert await is_closed(accepted)
    await until(lambda: world.connections == 0)
    other = Peer(world)
    stream = await world.bound(await client.connect(other.address))
    accepted = await other.accept()
    await stream.write(b"last")
    stream.end()
    assert await receive_all(accepted) == b"last"
    if world.way == "tcp":
        await send(accepted, b"answer")
        accepted.shutdown(socket.SHUT_WR)
        assert await read_all(stream) == b"answer"
    accepted.close()
    await until(lambda: world.connections == 0)


async def test_much_goes_both_ways_unchanged_though_the_readers_are_slow(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    up, down = secrets.token_bytes(8 << 20), secrets.token_bytes(8 << 20)

    async def write_up() -> None:
        for at in range(0, len(up), 100_000):
            await stream.write(up[at : at + 100_000])

    async def read_slowly(get: Callable[[], Any], size: int) -> str:
        digest, got = hashlib.sha256(), 0
        while got < size:
            data = await get()
            assert data
            digest.update(data)
            got += len(data)
            if got % 7 == 0:
                await asyncio.sleep(0.005)
        return digest.hexdigest()

    async with asyncio.timeout(3 * PATIENCE):
        results = await asyncio.gather(
            write_up(),
            asyncio.get_running_loop().sock_sendall(accepted, down),
            read_slowly(lambda: receive(accepted), len(up)),
            read_slowly(stream.read, len(down)),
        )
    assert results[2] == hashlib.sha256(up).hexdigest()
    assert results[3] == hashlib.sha256(down).hexdigest()


async def test_who_does_not_read_has_the_sender_wait(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()

    async def write_much() -> None:
        for _ in range(64):
            await stream.write(bytes(1 << 20))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(write_much(), 0.7)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(accepted, bytes(64 << 20)), 0.7)
    assert world.connections == 1
    accepted.close()
    await until(lambda: world.connections == 0)


async def test_the_end_of_an_allocation_ends_its_connections(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    other = Peer(world)
    await client.connect(other.address)
    unbound = await other.accept()
    assert world.connections == 2
    await client.refresh(0)
    assert await is_closed(accepted)
    assert await is_closed(unbound)
    assert await is_over(stream)
    assert world.connections == 0
    with pytest.raises(ConnectionError):
        socket.create_connection(client.relayed[0] if client.relayed else accepted.getpeername())


async def test_the_end_of_the_control_connection_does_too(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    client.link.abort()  # type: ignore[attr-defined]
    assert await is_closed(accepted)
    assert await is_over(stream)


async def test_a_clients_connection_that_breaks_ends_the_peers(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    stream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.abort()
    assert await is_closed(accepted)
    await until(lambda: world.connections == 0)
    # and nothing is left of it that would keep the next one from the same two addresses
    assert isinstance(await client.connect(peer.address), int)


async def test_a_peers_connection_that_breaks_ends_the_clients(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    accepted.close()
    assert await is_over(stream)
    await until(lambda: world.connections == 0)


async def test_who_refuses_and_who_is_not_there_are_447(world: World) -> None:
    await world.start()
    client = await world.allocated()
    peer = Peer(world)
    peer.listener.close()
    with pytest.raises(TransactionFailed, match="447"):
        await client.connect(peer.address)
    with pytest.raises(TransactionFailed, match="403"):
        await client.connect(Address("127.0.0.2", 80))
    assert world.connections == 0


async def test_two_clients_of_this_server_meet(world: World) -> None:
    await world.start()
    one, other = await world.allocated(), await world.allocated()
    await other.permit(one.relayed[0])
    connection = await one.connect(other.relayed[0])
    event = await asyncio.wait_for(other.receive(), PATIENCE)
    assert isinstance(event, PeerConnected)
    assert event.peer == one.relayed[0]
    here, there = await world.bound(connection), await world.bound(event.connection)
    await here.write(b"hello")
    assert await read(there, 5) == b"hello"
    await there.write(b"world")
    assert await read(here, 5) == b"world"


async def test_a_bound_connection_stays_when_idle_ones_go(world: World) -> None:
    await world.start(limits={"idle_timeout": "1s"})
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    await asyncio.sleep(2.5)
    await stream.write(b"there")
    assert await receive(accepted) == b"there"


async def test_the_server_stops_with_connections_open(world: World) -> None:
    await world.start()
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    await world.application.stop()
    assert await is_closed(accepted)
    assert await is_over(stream)
