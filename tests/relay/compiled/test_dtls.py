"""DTLS at a listener, once hands are shaken: messages go up and down, data are relayed as over UDP."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest

from tests.relay.compiled.dtls_client import DtlsClient, DtlsWorld, MakeDtlsWorld
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    SETTINGS,
    channel_data,
    now,
    read_from_relay,
    request,
    send_indication,
)
from turnsvr.plane import Challenge
from turnsvr.relay.compiled import sockets
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Family, FiveTuple, Transport
from turnsvr.stun.attributes import SOFTWARE
from turnsvr.stun.message import Method

SIZES = [0, 1, 2, 3, 4, 171, 1000, 1200, 1473, 4000, 16_380]
"""Of data in ChannelData: the last fills a record."""


async def connected(world: DtlsWorld, family: Family = Family.IPV4, *, session: bool = True) -> DtlsClient:
    client = world.client(family)
    await client.shake_hands()
    if session:
        await client.session(request().encode())
    return client


@pytest.mark.parametrize("family", FAMILIES)
async def test_messages_go_up_and_down(make_dtls_world: MakeDtlsWorld, family: Family) -> None:
    world = make_dtls_world()
    client = await connected(world, family, session=False)
    message = request().encode()
    client.say(message)
    five_tuple = await client.known()
    assert five_tuple[:3] == (Transport.DTLS, client.endpoint.address, world.listeners[family])
    assert five_tuple.connection > 0
    assert world.notes.messages == [(five_tuple, message)]
    world.pump.send(five_tuple, b"answer")
    assert await client.read() == b"answer"
    assert client.end.version == "DTLSv1.2"


async def test_what_the_pump_answers_over_udp_goes_up(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    listener = world.listeners[Family.IPV4]
    world.pump.challenge(listener, Challenge(b"", b"", b"k", b"p", 60.0))
    client = await connected(world, session=False)
    messages = [request(Method.BINDING).encode(), request().encode()]
    for message in messages:
        client.say(message)
    await world.until(lambda: [each for _, each in world.notes.messages] == messages)
    assert world.pump.totals().binding_answers == world.pump.totals().challenges == 0


@pytest.mark.parametrize("family", FAMILIES)
async def test_channel_data_of_every_size_byte_for_byte(make_dtls_world: MakeDtlsWorld, family: Family) -> None:
    world = make_dtls_world()
    client, peer = await connected(world, family), world.endpoint(LOOPBACK[family])
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    for size in SIZES:
        data = bytes(at * size & 0xFF for at in range(size))
        client.say(channel_data(0x4000, data))
        assert await peer.receive() == (data, client.relayed)
        peer.send(data[::-1], client.relayed)
        assert await client.read() == channel_data(0x4000, data[::-1])
    await world.until(lambda: world.pump.counters(client.number).packets_to_client == len(SIZES))
    counters = world.pump.counters(client.number)
    assert counters.bytes_from_client == counters.bytes_to_client == sum(SIZES)
    assert counters.packets_from_client == counters.packets_to_client == len(SIZES)
    assert counters.dropped == 0


@pytest.mark.parametrize("family", FAMILIES)
async def test_indications(make_dtls_world: MakeDtlsWorld, family: Family) -> None:
    world = make_dtls_world()
    client, peer = await connected(world, family), world.endpoint(LOOPBACK[family])
    for size in (0, 1, 170, 1203):
        client.say(send_indication(peer.address, bytes(size)).encode())
        assert await peer.receive() == (bytes(size), client.relayed)
        peer.send(bytes(size), client.relayed)
        assert read_from_relay(await client.read()) == (peer.address, bytes(size))


async def test_many_packets_keep_their_order(make_dtls_world: MakeDtlsWorld) -> None:
    """In bursts, so that they leave in runs: of one size, and of several."""
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    sent = [number.to_bytes(4, "big") * (50 if number % 7 else 49) for number in range(300)]
    for at in range(0, len(sent), 50):
        for data in sent[at : at + 50]:
            client.say(channel_data(0x4000, data))
        assert [(await peer.receive())[0] for _ in range(50)] == sent[at : at + 50]
        for data in sent[at : at + 50]:
            peer.send(data, client.relayed)
        assert [await client.read() for _ in range(50)] == [channel_data(0x4000, data) for data in sent[at : at + 50]]


async def test_many_messages_in_a_datagram(make_dtls_world: MakeDtlsWorld) -> None:
    """Records may share a datagram (RFC 6347 section 4.1.1)."""
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    sent = [bytes([number]) * (number + 1) for number in range(20)]
    records = [record for data in sent for record in client.end.seal(channel_data(0x4000, data))]
    client.transmit([b"".join(records)])
    assert [(await peer.receive())[0] for _ in sent] == sent


async def test_relay_to_relay(make_dtls_world: MakeDtlsWorld) -> None:
    """Inside the pump, of which each client sees the other's relayed address."""
    world = make_dtls_world()
    one, other = await connected(world), await connected(world)
    plain = world.session()
    plain.permit("127.0.0.1")
    for number in (one.number, other.number):
        world.pump.permit(number, "127.0.0.1", now(60))
    world.pump.bind_channel(one.number, 0x4001, other.relayed, now(60))
    for size in (1, 1000, 16_000):
        one.say(channel_data(0x4001, bytes(size)))
        assert read_from_relay(await other.read()) == (one.relayed, bytes(size))
        other.say(send_indication(one.relayed, bytes(size)).encode())
        assert read_from_relay(await one.read()) == (0x4001, bytes(size))
    plain.send(send_indication(one.relayed, b"from UDP").encode())
    assert read_from_relay(await one.read()) == (plain.relayed, b"from UDP")
    one.say(send_indication(plain.relayed, b"to UDP").encode())
    assert read_from_relay(await plain.receive()) == (one.relayed, b"to UDP")


async def test_udp_and_dtls_of_one_address_are_two_clients(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    plain = FiveTuple(Transport.UDP, client.endpoint.address, client.server)
    number, opened = world.open(plain, (Family.IPV4,))
    world.pump.permit(number, "127.0.0.1", now(60))
    assert opened.addresses[0] != client.relayed
    client.endpoint.send(send_indication(peer.address, b"plain").encode(), client.server)
    client.say(send_indication(peer.address, b"sealed").encode())
    arrived = [await peer.receive() for _ in range(2)]
    assert sorted(arrived) == [(b"plain", opened.addresses[0]), (b"sealed", client.relayed)]
    peer.send(b"to the plain one", opened.addresses[0])
    datagram, _ = await client.endpoint.receive()
    assert read_from_relay(datagram) == (peer.address, b"to the plain one")
    peer.send(b"to the other", client.relayed)
    assert read_from_relay(await client.read()) == (peer.address, b"to the other")


async def test_deadlines_and_permissions_hold(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    stranger = world.endpoint("127.0.0.2")
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))

    async def dropped(reason: Drop) -> None:
        before = world.pump.totals().drops[reason]
        client.say(channel_data(0x4000, b"no"))
        peer.send(b"no", client.relayed)
        await world.until(lambda: world.pump.totals().drops[reason] == before + 2)

    stranger.send(b"not permitted", client.relayed)
    await world.until(lambda: world.pump.totals().drops[Drop.NO_PERMISSION] == 1)
    client.say(send_indication(stranger.address, b"not permitted").encode())
    await world.until(lambda: world.pump.totals().drops[Drop.NO_PERMISSION] == 2)
    client.say(channel_data(0x4F00, b"not bound"))
    await world.until(lambda: world.pump.totals().drops[Drop.NO_CHANNEL] == 1)
    world.pump.permit(client.number, "127.0.0.1", now(-1))
    await dropped(Drop.EXPIRED)
    world.pump.permit(client.number, "127.0.0.1", now(60))
    client.say(channel_data(0x4000, b"yes"))
    assert (await peer.receive())[0] == b"yes"
    world.pump.refresh(client.number, now(-1))
    await dropped(Drop.EXPIRED)
    assert peer.waiting() == stranger.waiting() == []


async def test_bandwidth_counts_data_alone(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world(replace(SETTINGS, bandwidth=1000.0))
    client, peer = await connected(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    client.say(channel_data(0x4000, bytes(1000)))
    client.say(channel_data(0x4000, bytes(1000)))
    assert await peer.receive() == (bytes(1000), client.relayed)
    await world.until(lambda: world.pump.totals().drops[Drop.BANDWIDTH] == 1)
    peer.send(bytes(1000), client.relayed)
    peer.send(bytes(1000), client.relayed)
    assert await client.read() == channel_data(0x4000, bytes(1000))
    await world.until(lambda: world.pump.totals().drops[Drop.BANDWIDTH] == 2)


async def test_what_fits_no_record_is_dropped(make_dtls_world: MakeDtlsWorld) -> None:
    """And what fits one is no larger than the largest."""
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    peer.send(bytes(16_381), client.relayed)
    await world.until(lambda: world.pump.totals().drops[Drop.SEND_FAILED] == 1)
    five_tuple = await client.known()
    world.pump.send(five_tuple, bytes(16_385))
    world.pump.send(five_tuple, b"")
    assert world.pump.totals().drops[Drop.SEND_FAILED] == 3
    peer.send(bytes(16_380), client.relayed)
    assert await client.read() == channel_data(0x4000, bytes(16_380))


async def test_order_holds_while_the_rules_judge(make_dtls_world: MakeDtlsWorld) -> None:
    """Data behind the request that opens the way for them wait for it."""
    world = make_dtls_world()
    client, peer = await connected(world, session=False), world.endpoint()
    five_tuples: list[FiveTuple] = []

    def judge(batch: list[tuple[FiveTuple, bytes]]) -> tuple[()]:
        for five_tuple, _ in batch:
            if not five_tuples:
                five_tuples.append(five_tuple)
                client.number, opened = world.open(five_tuple, (Family.IPV4,))
                client.relayed = opened.addresses[0]
                world.pump.permit(client.number, "127.0.0.1", now(60))
                world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
        return ()

    world.notes.client_messages = judge  # type: ignore[assignment, method-assign]
    client.say(request().encode())
    for number in range(10):
        client.say(channel_data(0x4000, bytes([number])))
    assert [await peer.receive() for _ in range(10)] == [(bytes([number]), client.relayed) for number in range(10)]


@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("steered", [True, False])
async def test_several_threads(
    make_dtls_world: MakeDtlsWorld, monkeypatch: pytest.MonkeyPatch, lanes: int, *, steered: bool
) -> None:
    """Each client's datagrams find its thread, wherever the kernel brings them; clients of all reach each other."""
    if not steered:

        def refuse(descriptor: int, lanes: int) -> None:
            raise OSError(errno.EPERM, "not here")

        monkeypatch.setattr(sockets, "steer_group", refuse)
    world = make_dtls_world(replace(SETTINGS, threads=lanes))
    clients = [await connected(world) for _ in range(8)]
    for client in clients:
        world.pump.permit(client.number, "127.0.0.1", now(60))
    numbers = [(await client.known()).connection for client in clients]
    assert len(set(numbers)) == len(clients)
    for one in clients:
        for other in clients:
            if one is not other:
                one.say(send_indication(other.relayed, b"hello").encode())
                assert read_from_relay(await other.read()) == (one.relayed, b"hello")


async def test_icmp_errors_reach_the_handler(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    address = peer.address
    peer.socket.close()
    client.say(send_indication(address, b"nobody is there").encode())
    await world.until(lambda: bool(world.notes.errors))
    assert world.notes.errors[0][:2] == (client.number, address)


async def test_a_client_that_says_goodbye_is_told_so(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    five_tuple = await client.known()
    client.transmit(client.end.close())
    await world.until(lambda: bool(world.notes.closed))
    assert world.notes.closed == [(five_tuple, "closed by the client")]
    while not client.end.is_over:
        await client.hear()
    assert world.pump.associations().open == 0
    peer.send(b"too late", client.relayed)
    world.pump.send(five_tuple, b"too late")
    await world.until(lambda: world.pump.totals().drops[Drop.SEND_FAILED] == 2)
    client.transmit([b"\x17\xfe\xfd" + bytes(8) + b"\x00\x01\x00"])
    await world.until(lambda: world.pump.totals().drops[Drop.NO_SESSION] == 1)
    world.pump.close(client.number)


async def test_what_waits_of_a_client_that_has_gone_is_forgotten(make_dtls_world: MakeDtlsWorld) -> None:
    """The rules keep its message; what it said behind that is judged by nobody."""
    world = make_dtls_world()
    client = await connected(world, session=False)
    kept: list[FiveTuple] = []

    def keep(batch: list[tuple[FiveTuple, bytes]]) -> list[FiveTuple]:
        kept.extend(five_tuple for five_tuple, _ in batch)
        return list(kept)

    world.notes.client_messages = keep  # type: ignore[assignment, method-assign]
    for _ in range(5):
        client.say(request().encode())
    await world.until(lambda: bool(kept))
    client.transmit(client.end.close())
    await world.until(lambda: bool(world.notes.closed))
    world.pump.proceed(kept[0])
    await asyncio.sleep(0.02)
    assert len(kept) == 1
    assert world.pump.totals().waiting == 0


async def test_the_end_of_the_pump_is_told(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    clients = [await connected(world), await connected(world, session=False)]
    world.pump.shutdown()
    for client in clients:
        while not client.end.is_over:
            await client.hear()


async def test_a_repeated_request_goes_up_once(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client = await connected(world, session=False)
    message = request().add(SOFTWARE, "s" * 700).encode()
    records = [record for _ in range(5) for record in client.end.seal(message)]
    client.transmit(records)
    await client.known()
    await world.until(lambda: world.pump.totals().sent_up == 5)


async def test_a_replayed_record_is_ignored(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client, peer = await connected(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    once = client.end.seal(channel_data(0x4000, b"once"))
    client.transmit(once * 5)
    client.say(channel_data(0x4000, b"last"))
    assert [(await peer.receive())[0] for _ in range(2)] == [b"once", b"last"]
    assert peer.waiting() == []
