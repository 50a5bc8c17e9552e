"""Clients that move (RFC 8016), through the whole server: real sockets of every kind, both pumps, both ways of TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.link import ClientLink, open_link, tls_context
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.stun.address import Address, Transport

ON = {"mobility": True}
OVER = [Transport.UDP, Transport.TCP, Transport.TLS]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0.002)


class Peer(asyncio.DatagramProtocol):
    """Keeps what it gets, and sends."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport
        self.address = Address(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append(data)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    transport, made = await asyncio.get_running_loop().create_datagram_endpoint(Peer, ("127.0.0.1", 0))
    yield made
    transport.close()


@dataclass
class Call:
    """A client in a call with a peer."""

    application: Application
    client: TurnClient
    peer: Peer
    channel: int

    async def link(self, transport: Transport) -> ClientLink:
        tls = tls_context(insecure=True) if transport is Transport.TLS else None
        return await open_link(transport, address_of(self.application, transport.value), tls=tls)

    async def says(self, data: bytes) -> None:
        """Send to the peer, until it is there."""
        self.client.send_channel(self.channel, data)
        await until(lambda: data in self.peer.got)

    async def hears(self, data: bytes) -> None:
        """Have the peer send, until it is there."""
        self.peer.transport.sendto(data, self.client.relayed[0])
        heard = await asyncio.wait_for(self.client.receive(), PATIENCE)
        assert heard == PeerData(self.peer.address, data, self.channel)


async def call(application: Application, peer: Peer, transport: Transport) -> Call:
    tls = tls_context(insecure=True) if transport is Transport.TLS else None
    link = await open_link(transport, address_of(application, transport.value), tls=tls)
    client = TurnClient(link, Login(USER, PASSWORD))
    await client.allocate(AllocateOptions(mobile=True))
    return Call(application, client, peer, await client.bind_channel(peer.address))


@pytest.mark.parametrize("kind", ["portable", "compiled"])
@pytest.mark.parametrize("before", OVER)
async def test_a_call_moves_over_every_transport(serve: Serve, peer: Peer, before: Transport, kind: str) -> None:
    application = await serve(stun=ON, pump={"kind": kind, "threads": 3})
    talk = await call(application, peer, before)
    await talk.says(b"first")
    await talk.hears(b"first")
    for turn, after in enumerate([*OVER, *OVER]):
        left = await talk.client.move(await talk.link(after))
        await talk.hears(b"still there %d" % turn)
        await talk.says(b"moved %d" % turn)
        await talk.hears(b"here now %d" % turn)
        await left.close()
        await talk.hears(b"here still %d" % turn)
    (allocation,) = application.server.allocations()
    assert allocation.five_tuple.transport is Transport.TLS
    await talk.client.refresh(0)
    await talk.client.close()
    assert len(application.server) == 0


@pytest.mark.parametrize("kind", ["portable", "compiled"])
@pytest.mark.parametrize("before", [Transport.TCP, Transport.TLS])
async def test_a_call_outlives_its_connection(serve: Serve, peer: Peer, before: Transport, kind: str) -> None:
    application = await serve(stun=ON, pump={"kind": kind, "threads": 2})
    talk = await call(application, peer, before)
    for after in (Transport.UDP, before, Transport.TLS):
        await talk.client.link.close()
        (allocation,) = application.server.allocations()
        if allocation.five_tuple.transport.is_stream:
            await until(partial(getattr, allocation, "is_left"))
        await talk.client.move(await talk.link(after))
        await talk.says(b"here by " + after.value.encode())
        await talk.hears(b"there by " + after.value.encode())
    await talk.client.close()


async def test_off_by_default(serve: Serve) -> None:
    application = await serve()
    link = await open_link(Transport.UDP, address_of(application, "udp"))
    client = TurnClient(link, Login(USER, PASSWORD))
    with pytest.raises(ClientError, match="405 Mobility Forbidden"):
        await client.allocate(AllocateOptions(mobile=True))
    await client.close()


async def test_a_refused_move_leaves_the_client_where_it_is(serve: Serve, peer: Peer) -> None:
    application = await serve(stun=ON)
    talk = await call(application, peer, Transport.UDP)
    good, talk.client.ticket = talk.client.ticket, b"no ticket"
    link = await talk.link(Transport.TCP)
    with pytest.raises(ClientError, match="400"):
        await talk.client.move(link)
    await link.close()
    await talk.says(b"still here")
    talk.client.ticket = good
    left = await talk.client.move(await talk.link(Transport.TCP))
    await talk.says(b"moved")
    await left.close()
    await talk.client.close()
