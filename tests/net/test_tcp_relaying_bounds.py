"""What holds for TCP relaying (RFC 6062) over real sockets: peers that are refused, rates, floods, every door."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, free_port
from tests.net.tcpworld import Peer, World, is_closed, read, receive, send
from tests.net.test_proxied import CLIENT, HERE, link, version_1, version_2
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, PeerConnected, TurnClient
from turnsvr.stun.address import Address, Family
from turnsvr.stun.message import Method


async def test_a_user_is_held_to_the_bandwidth_of_the_allocation(world: World) -> None:
    await world.start(limits={"bandwidth_per_allocation": "1 MB/s"})
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    loop = asyncio.get_running_loop()
    began = loop.time()
    size = 1_500_000
    writing = asyncio.create_task(stream.write(bytes(size)))
    got = 0
    while got < size:
        got += len(await receive(accepted))
    await writing
    assert 0.3 < loop.time() - began < 2.0
    began = loop.time()
    sending = asyncio.create_task(loop.sock_sendall(accepted, bytes(size)))
    got = 0
    while got < size:
        got += len(await asyncio.wait_for(stream.read(), PATIENCE))
    await sending
    assert 0.3 < loop.time() - began < 2.0


async def test_a_service_of_this_host_is_reached_at_its_named_ports_alone(world: World) -> None:
    """In every spelling, and so is one that connects."""
    named, other, source = Peer(world), Peer(world), free_port()
    ports = [f"127.0.0.1:{named.address.port}", f"127.0.0.1:{source}"]
    await world.start(peers={"allow": ports})
    client, client6 = await world.allocated(), await world.allocated(Family.IPV6)
    assert isinstance(await client.connect(named.address), int)
    await named.accept()
    port = named.address.port
    for host in ("::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "::"):
        with pytest.raises(TransactionFailed, match="403"):
            await client6.connect(Address(host, port))
    for peer in (other.address, Address("127.0.0.2", port), Address("224.0.0.1", port), Address("0.0.0.0", port)):
        with pytest.raises(TransactionFailed, match="403"):
            await client.connect(peer)
    for each in (named, other):
        with pytest.raises(BlockingIOError):  # nobody has been there since
            each.listener.accept()
    await client.permit(Address("127.0.0.1", 0))
    relayed = client.relayed[0]
    assert await is_closed(world.keep(socket.create_connection(relayed)))
    assert await is_closed(world.keep(socket.create_connection(relayed, source_address=("127.0.0.2", source))))
    world.keep(socket.create_connection(relayed, source_address=("127.0.0.1", source)))
    event = await asyncio.wait_for(client.receive(), PATIENCE)
    assert isinstance(event, PeerConnected)
    assert event.peer == Address("127.0.0.1", source)


async def test_a_user_cannot_look_for_open_ports(world: World) -> None:
    await world.start(limits={"peer_connect_rate_per_user": "6/min"})
    peer = Peer(world)
    client = await world.allocated()
    await client.connect(peer.address)
    before = Peer(world)
    for each in (client, await world.allocated()):
        with pytest.raises(TransactionFailed, match="508"):
            await each.connect(before.address)
    with pytest.raises(BlockingIOError):  # nobody has been there
        before.listener.accept()
    answers = world.application.server.answers
    assert (answers[Method.CONNECT, 200], answers[Method.CONNECT, 508]) == (1, 2)
    assert world.application.rooms.sessions.value.attempts_refused == 0


async def test_peers_that_flood_a_relayed_address_are_reset_and_counted(world: World) -> None:
    await world.start(limits={"peer_attempts_per_allocation": 4})
    client = await world.allocated()
    await client.permit(client.relayed[0])
    flood = [world.keep(socket.create_connection(client.relayed[0])) for _ in range(12)]
    waiting = [await asyncio.wait_for(client.receive(), PATIENCE) for _ in range(2)]
    for late in flood[2:]:
        assert await is_closed(late)
    assert world.connections == 2
    assert {each.peer for each in waiting} == {Address(*each.getsockname()) for each in flood[:2]}
    assert world.application.rooms.sessions.value.attempts_refused == len(flood[2:])
    assert await is_closed(world.keep(socket.create_connection(client.relayed[0], source_address=("127.0.0.2", 0))))
    assert world.application.rooms.sessions.value.attempts_refused == len(flood[2:]), "it has no permission"


@pytest.mark.parametrize("header", [version_1, version_2], ids=["version 1", "version 2"])
async def test_a_balancer_may_stand_in_front(world: World, header: Callable[[Address], bytes]) -> None:
    """Its clients have a rate each, by the address in the header."""
    await world.start(proxy=HERE, limits={"peer_connect_rate_per_address": "6/min"})
    clients: list[tuple[TurnClient, StreamLink]] = []
    for host in (CLIENT.host, CLIENT.host, "192.0.2.8"):
        links = [
            await link(world.application, world.way, header(Address(host, port)), tls=world.way == "tls")
            for port in (len(clients) * 2 + 1, len(clients) * 2 + 2)
        ]
        client = TurnClient(world.keep_link(links[0]), Login(USER, PASSWORD))
        await client.allocate(AllocateOptions(transport=TCP_PROTOCOL))
        assert client.mapped is not None
        assert client.mapped.host == host
        clients.append((client, world.keep_link(links[1])))
    for (client, data), peer in ((clients[0], Peer(world)), (clients[2], Peer(world))):
        stream = await client.join(await client.connect(peer.address), data)
        accepted = await peer.accept()
        await stream.write(b"there")
        assert await receive(accepted) == b"there"
        await send(accepted, b"back")
        assert await read(stream, 4) == b"back"
    with pytest.raises(TransactionFailed, match="508"):
        await clients[1][0].connect(Peer(world).address)


async def test_a_shared_port_serves_it_too(world: World) -> None:
    await world.start(share="web", web={"listen": "http://127.0.0.1:0", "page": True})
    peer = Peer(world)
    client = await world.allocated()
    stream = await world.bound(await client.connect(peer.address))
    accepted = await peer.accept()
    await stream.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await receive(accepted) == b"GET / HTTP/1.1\r\n\r\n"
    await send(accepted, b"HTTP/1.1 200 OK\r\n")
    assert await read(stream, 17) == b"HTTP/1.1 200 OK\r\n"
