"""Stream clients whose bytes somebody else reads and writes."""

from __future__ import annotations

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    World,
    channel_data,
    now,
    read_from_relay,
    request,
    send_indication,
)
from turnsvr.ranges import NO_PORT
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.attributes import XOR_PEER_ADDRESS
from turnsvr.stun.message import Class, Message, Method

CLIENT = FiveTuple(Transport.TLS, Address("127.0.0.1", 50_000), Address("127.0.0.1", 5349))


class Stream:
    """An attached client with a session."""

    def __init__(self, world: World, family: Family = Family.IPV4) -> None:
        self._world = world
        self.written: list[bytes] = []
        self.frames: list[bytes] = []
        self.accepts = True
        world.pump.attach(CLIENT, self._write, self._resume)
        self.number, opened = world.open(CLIENT, (family,))
        self.relayed = opened.addresses[0]
        world.pump.permit(self.number, LOOPBACK[family], now(60))

    def _write(self, frame: bytes) -> bool:
        if self.accepts:
            self.written.append(frame)
        return self.accepts

    def _resume(self) -> None:
        del self.frames[: self._world.pump.relay(CLIENT, self.frames)]

    def relay(self, *frames: bytes) -> int:
        """Bring frames; those behind a message follow when it has been judged. Returns how many were taken at once."""
        self._world.sent += len(frames)
        self.frames += frames
        self._resume()
        return len(frames) - len(self.frames)

    async def read(self) -> bytes:
        await self._world.until(lambda: bool(self.written))
        return self.written.pop(0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000, 65_507])
async def test_channel_data_is_padded(pump_factory: PumpFactory, family: Family, size: int) -> None:
    world = pump_factory()
    stream, peer = Stream(world, family), world.endpoint(LOOPBACK[family])
    world.pump.bind_channel(stream.number, 0x4000, peer.address, now(60))
    data, padding = bytes(at % 251 for at in range(size)), bytes(-size % 4)
    assert stream.relay(channel_data(0x4000, data, padding)) == 1
    assert await peer.receive() == (data, stream.relayed)
    peer.send(data, stream.relayed)
    assert await stream.read() == channel_data(0x4000, data, padding)
    await world.settled()
    assert world.pump.counters(stream.number) == Counters(1, size, 1, size, 0)


@pytest.mark.parametrize("fingerprint", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [0, 1, 1000, 65_000])
async def test_indications(pump_factory: PumpFactory, family: Family, size: int, fingerprint: bool) -> None:
    world = pump_factory()
    stream, peer = Stream(world, family), world.endpoint(LOOPBACK[family])
    assert stream.relay(send_indication(peer.address, bytes(size)).encode(fingerprint=fingerprint)) == 1
    assert (await peer.receive())[0] == bytes(size)
    assert not world.notes.messages
    peer.send(bytes(size), stream.relayed)
    assert read_from_relay(await stream.read()) == (peer.address, bytes(size))


async def test_what_is_not_covered_goes_up_in_order(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream, peer = Stream(world), world.endpoint()
    binding = Message(Method.BINDING, Class.REQUEST, bytes(12)).encode()
    odd = send_indication(peer.address, b"abc").add(XOR_PEER_ADDRESS, peer.address).encode(fingerprint=True)
    plain = send_indication(peer.address, b"abc").encode()
    first, last = request().encode(), request(Method.REFRESH).encode()
    frames = [first, channel_data(0x4000, b"abcd"), binding, plain, odd, last]
    assert stream.relay(*frames) == 1
    assert (await peer.receive())[0] == b"abc"
    totals = await world.settled()
    assert totals.drops[Drop.NO_CHANNEL] == 1
    assert totals.binding_answers == 0
    await world.until(lambda: len(world.notes.messages) == 4)
    assert world.notes.messages == [(CLIENT, message) for message in (first, binding, odd, last)]


async def test_too_much_for_a_datagram_is_dropped(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream, peer = Stream(world), world.endpoint()
    world.pump.bind_channel(stream.number, 0x4000, peer.address, now(60))
    for size in (65_508, 65_535):
        assert stream.relay(channel_data(0x4000, bytes(size), bytes(-size % 4))) == 1
    await world.dropped(Drop.MALFORMED, 2)
    assert not peer.waiting()


async def test_data_that_no_indication_can_hold_is_dropped(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream, peer = Stream(world, Family.IPV6), world.endpoint("::1")
    peer.send(bytes(65_507), stream.relayed)
    totals = await world.settled()
    assert sum(totals.drops.values()) == 1
    assert not stream.written


async def test_a_slow_client_loses_whole_frames(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream, peer = Stream(world), world.endpoint()
    stream.accepts = False
    peer.send(b"lost", stream.relayed)
    await world.dropped(Drop.SLOW_CLIENT)
    stream.accepts = True
    peer.send(b"kept", stream.relayed)
    assert read_from_relay(await stream.read()) == (peer.address, b"kept")
    assert world.pump.counters(stream.number).dropped == 1


async def test_a_detached_client_gets_nothing_and_keeps_its_session(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream, peer = Stream(world), world.endpoint()
    world.pump.detach(CLIENT)
    world.pump.detach(CLIENT)
    peer.send(b"lost", stream.relayed)
    totals = await world.settled()
    assert sum(totals.drops.values()) == 1
    assert not stream.written
    assert world.pump.close(stream.number).dropped == 1


async def test_send_writes_to_the_client(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream = Stream(world)
    world.pump.send(CLIENT, b"an answer")
    assert await stream.read() == b"an answer"
    world.pump.detach(CLIENT)
    world.pump.send(CLIENT, b"lost")
    assert not stream.written


async def test_a_client_without_a_session(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    world.pump.attach(CLIENT, lambda frame: True, lambda: None)
    first = request().encode()
    world.sent += 2
    assert world.pump.relay(CLIENT, [channel_data(0x4000, b"abcd"), first]) == 2
    assert (await world.settled()).drops[Drop.NO_SESSION] == 1


async def test_a_stream_client_meets_a_udp_client(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    stream, other = Stream(world), world.session()
    other.permit(stream.relayed.host, ports=NO_PORT)
    world.pump.permit(stream.number, other.relayed.host, now(60), NO_PORT)
    assert stream.relay(send_indication(other.relayed, b"abc").encode()) == 1
    assert read_from_relay(await other.receive()) == (stream.relayed, b"abc")
    other.send(send_indication(stream.relayed, b"def").encode())
    assert read_from_relay(await stream.read()) == (other.relayed, b"def")


async def test_hanging_up_on_an_unknown_connection_is_fine(pump_factory: PumpFactory) -> None:
    pump_factory().pump.hang_up(CLIENT)


async def test_the_portable_pump_leaves_connections_to_others() -> None:
    world = World("portable")
    assert world.pump.adopt(-1, CLIENT, b"") is False
    world.end()
