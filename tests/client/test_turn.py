"""Our TURN client against our own server and against coturn, over every transport."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client.conftest import LOGIN, TIMERS, TRANSPORTS, Target
from tests.client.coturn import coturn
from tests.conftest import PASSWORD, USER, Serve, address_of
from tests.turn.world import raw
from turnsvr.client.credentials import MD5, SHA256, AccessToken, Login, Security
from turnsvr.client.link import DatagramLink, new_request, open_link, tls_context
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import AllocateOptions, PeerData, PeerError, TurnClient
from turnsvr.config.locations import StoreUrl
from turnsvr.config.settings import StunSettings
from turnsvr.credentials.accesstokenkeys import AccessTokenKey, Contents
from turnsvr.net.tls import TlsFiles
from turnsvr.stores import open_store
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.attributes import ATTRIBUTES, UNKNOWN_ATTRIBUTES, EvenPort
from turnsvr.stun.message import Method

EVERY_TRANSPORT = pytest.mark.parametrize("transport", TRANSPORTS)


@EVERY_TRANSPORT
async def test_two_clients_talk_through_their_relays(target: Target, transport: Transport) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await target.client(transport) for _ in range(2)]
        for client in (one, other):
            stack.push_async_callback(client.close)
            await client.allocate()
        await one.permit(other.relayed[0])
        channel = await other.bind_channel(one.relayed[0])
        async with asyncio.timeout(10):
            one.send(other.relayed[0], b"by an indication")
            assert await other.receive() == PeerData(one.relayed[0], b"by an indication", channel)
            other.send_channel(channel, b"odd")
            assert await one.receive() == PeerData(other.relayed[0], b"odd", None)


@EVERY_TRANSPORT
async def test_an_allocation_lives_by_refreshes_and_ends_by_one(target: Target, transport: Transport) -> None:
    client = await target.client(transport)
    await client.allocate(AllocateOptions(lifetime=700))
    assert client.lifetime == 700
    assert client.mapped == client.link.local
    await client.refresh(900)
    assert client.lifetime == 900
    await client.refresh(0)
    assert client.relayed == ()
    if target.is_ours:  # coturn 4.6.1 goes on granting permissions
        with pytest.raises(TransactionFailed, match="437"):
            await client.permit(Address("127.0.0.1", 9))
    await client.close()


async def test_wrong_credentials_end_with_401(target: Target) -> None:
    client = await target.client(Transport.UDP, Login(USER, "wrong"))
    with pytest.raises(TransactionFailed, match="401"):
        await client.allocate()
    await client.close()


async def test_an_even_port_can_be_asked_for_and_the_next_one_reserved(target: Target) -> None:
    client = await target.client(Transport.UDP)
    await client.allocate(AllocateOptions(even_port=EvenPort(reserve=True)))
    assert client.relayed[0].port % 2 == 0
    sibling = await target.client(Transport.UDP)
    await sibling.allocate(AllocateOptions(reservation_token=client.reservation_token))
    assert sibling.relayed[0].port == client.relayed[0].port + 1
    await sibling.close()
    await client.close()


@pytest.mark.parametrize(("security", "algorithm"), [(Security.BEST, {MD5, SHA256}), (Security.CLASSIC, {MD5})])
async def test_both_kinds_of_integrity_work_with_our_server(
    serve: Serve, security: Security, algorithm: set[int]
) -> None:
    server = address_of(await serve(), "udp")
    client = TurnClient(await DatagramLink.open(server, timers=TIMERS), Login(USER, PASSWORD, security))
    await client.allocate()
    await client.refresh()
    assert client.session is not None
    assert client.session.algorithm in algorithm
    assert bool(client.session.algorithms) == (security is Security.BEST)
    await client.close()


async def test_an_icmp_error_of_the_relay_comes_to_the_client_of_our_server(serve: Serve) -> None:
    application = await serve()
    told = StunSettings(icmp_indications=True)
    assert application.reload(application.settings.model_copy(update={"stun": told})) == []
    server = address_of(application, "udp")
    gone = await DatagramLink.open(local=Address("127.0.0.1", 0))
    await gone.close()
    client = TurnClient(await DatagramLink.open(server, timers=TIMERS), LOGIN)
    await client.allocate()
    await client.permit(gone.local)
    client.send(gone.local, b"is anybody there?")
    async with asyncio.timeout(10):
        event = await client.receive()
    assert isinstance(event, PeerError)
    assert (event.peer.host, event.icmp.type, event.icmp.code) == ("127.0.0.1", 3, 3)
    await client.close()


@pytest.mark.parametrize("kind", ["compiled", "portable"])
@EVERY_TRANSPORT
async def test_only_data_comes_of_a_dead_peer_by_default(serve: Serve, transport: Transport, kind: str) -> None:
    """What comes first is a live peer's packet, not one of the errors that came before it."""
    server = address_of(await serve(pump={"kind": kind}), transport.value)
    tls = tls_context(insecure=True) if transport is Transport.TLS else None
    gone = await DatagramLink.open(local=Address("127.0.0.1", 0))
    await gone.close()
    alive = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with alive:
        alive.bind(("127.0.0.1", 0))
        client = TurnClient(await open_link(transport, server, tls=tls, timers=TIMERS), LOGIN)
        await client.allocate()
        await client.permit(gone.local)
        for _ in range(3):
            client.send(gone.local, b"is anybody there?")
        await client.permit(gone.local)
        alive.sendto(b"here", client.relayed[0])
        async with asyncio.timeout(10):
            event = await client.receive()
        assert isinstance(event, PeerData)
        await client.close()


@pytest.mark.parametrize("kind", ["compiled", "portable"])
@EVERY_TRANSPORT
async def test_what_fills_a_message_is_answered(serve: Serve, transport: Transport, kind: str) -> None:
    """As many peers as the server grants, and one more; attributes that it does not know, as many as there is room."""
    server = address_of(await serve(pump={"kind": kind}), transport.value)
    tls = tls_context(insecure=True) if transport is Transport.TLS else None
    client = TurnClient(await open_link(transport, server, tls=tls, timers=TIMERS), LOGIN)
    await client.allocate()
    peers = [Address(f"8.8.{number >> 8}.{number & 255}", 9) for number in range(1, 258)]
    await client.permit(*peers[:256])
    with pytest.raises(TransactionFailed, match="400"):
        await client.permit(*peers)
    unknown = [number for number in range(0x7FFF) if number not in ATTRIBUTES][:16_000]
    request = new_request(Method.BINDING)
    for number in unknown:
        raw(request, number)
    with pytest.raises(TransactionFailed, match="420") as refused:
        await client.link.request(request)
    assert refused.value.response.message.get(UNKNOWN_ATTRIBUTES) == tuple(unknown)
    await client.close()


async def test_a_dual_allocation_has_an_address_of_each_family(serve: Serve) -> None:
    server = address_of(
        await serve(relay={"addresses": ["127.0.0.1", "::1"]}, peers={"allow": ["127.0.0.1", "::1"]}), "udp"
    )
    client = TurnClient(await DatagramLink.open(server, timers=TIMERS), LOGIN)
    await client.allocate(AllocateOptions(additional_family=Family.IPV6))
    assert [address.family for address in client.relayed] == [Family.IPV4, Family.IPV6]
    await client.close()


async def test_a_stale_nonce_is_replaced_on_the_way(serve: Serve) -> None:
    server = address_of(await serve(), "udp")
    client = TurnClient(await DatagramLink.open(server, timers=TIMERS), LOGIN)
    await client.allocate()
    assert client.session is not None
    client.session = replace(client.session, nonce=client.session.nonce[:-1] + b"!")
    await client.refresh(800)
    assert client.lifetime == 800
    assert not client.session.nonce.endswith(b"!")
    await client.close()


async def test_what_nobody_takes_is_dropped_oldest_first(serve: Serve) -> None:
    server = address_of(await serve(), "udp")
    clients = [TurnClient(await DatagramLink.open(server, timers=TIMERS), LOGIN) for _ in range(2)]
    for client in clients:
        await client.allocate()
    one, other = clients
    await other.permit(one.relayed[0])
    await one.permit(other.relayed[0])
    async with asyncio.timeout(10):
        number = 0
        while not other.dropped:
            one.send(other.relayed[0], number.to_bytes(4, "big"))
            number += 1
            await asyncio.sleep(0)
        first = await other.receive()
    assert isinstance(first, PeerData)
    assert int.from_bytes(first.data, "big") > 0
    for client in clients:
        await client.close()


async def test_an_access_token_at_coturn(tmp_path: Path, certificate: TlsFiles) -> None:
    """coturn reads the key that we have written, and signs with the first 16 bytes of the token's key."""
    key = AccessTokenKey("north", bytes(range(1, 33)))
    store = open_store(StoreUrl.parse(f"sqlite:{tmp_path / 'db'}"), 10)
    await store.prepare()
    await store.set_key(key)
    await store.close()
    mac_key = bytes(range(1, 21))
    token = key.seal(Contents(mac_key, time.time(), 600), "turn.example.org", os.urandom(12))
    login = Login("north", "", Security.CLASSIC, token=AccessToken(token, mac_key[:16]))
    with coturn(tmp_path, certificate, "--oauth", "--server-name=turn.example.org") as server:
        client = TurnClient(await open_link(Transport.UDP, server.plain, timers=TIMERS), login)
        await client.allocate()
        await client.permit(Address("127.0.0.1", 9))
        await client.refresh(0)
        await client.close()
