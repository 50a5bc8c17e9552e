"""Whatever arrives, the pump goes on, and nobody gets what no permission covers."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.test_challenges import Challenged
from tests.relay.world import World, channel_data, now, read_from_relay, send_indication
from turnsvr.relay import PumpKind
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.message import COOKIE_BYTES

STREAM = FiveTuple(Transport.TCP, Address("127.0.0.1", 50_000), Address("127.0.0.1", 3478))


def _frames() -> st.SearchStrategy[bytes]:
    """Bytes that look like something for a while."""
    u16 = st.integers(0, 0xFFFF).map(lambda number: number.to_bytes(2, "big"))
    body = st.binary(max_size=80)
    # XOR-PEER-ADDRESS, DATA, DONT-FRAGMENT, REQUESTED-TRANSPORT, SOFTWARE, FINGERPRINT
    number = st.sampled_from([b"\0\x12", b"\0\x13", b"\0\x1a", b"\0\x19", b"\x80\x22", b"\x80\x28"]) | u16
    attribute = st.tuples(number, u16, body).map(b"".join)
    sized = st.builds(
        lambda number, value: number + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4), number, body
    )
    kinds = st.sampled_from([b"\0\x16", b"\0\x01", b"\0\x03", b"\0\x17"]) | u16
    stun = st.builds(
        lambda kind, body: kind + len(body).to_bytes(2, "big") + COOKIE_BYTES + bytes(12) + body,
        kinds,
        st.lists(attribute | sized, max_size=4).map(b"".join),
    )
    channel = st.tuples(st.sampled_from([b"\x40\0", b"\x40\x01", b"\x7f\xff"]) | u16, u16, body).map(b"".join)
    valid = st.builds(channel_data, st.integers(0x4000, 0x7FFF), body)
    return st.one_of(st.binary(max_size=100), stun, channel, valid)


@settings(max_examples=150, deadline=None)
@given(frames=st.lists(_frames(), max_size=20))
def test_any_datagram_to_the_listener_and_the_relay(pump_kind: PumpKind, frames: list[bytes]) -> None:
    asyncio.run(_any_datagram(pump_kind, frames))


async def _any_datagram(kind: PumpKind, frames: list[bytes]) -> None:
    world = Challenged(World(kind)).world
    try:
        session, peer, stranger, bystander = world.session(), world.endpoint(), world.endpoint(), world.endpoint()
        session.permit(peer.address.host)
        session.bind(0x4000, peer.address)
        for frame in frames:
            session.send(frame)
            stranger.send(frame, session.five_tuple.server)
            peer.send(frame, session.relayed)
            await session.receive()
        await world.settled()
        assert not bystander.waiting()
        assert all(source.client in (session.endpoint.address, stranger.address) for source, _ in world.notes.messages)
        session.endpoint.waiting()
        peer.waiting()
        session.send(channel_data(0x4000, b"still here"))
        assert (await peer.receive())[0] == b"still here"
    finally:
        world.end()


@settings(max_examples=150, deadline=None)
@given(frames=st.lists(_frames(), max_size=20))
def test_any_frames_of_a_stream(pump_kind: PumpKind, frames: list[bytes]) -> None:
    asyncio.run(_any_frames(pump_kind, frames))


async def _any_frames(kind: PumpKind, frames: list[bytes]) -> None:
    world = World(kind)
    try:
        peer, written = world.endpoint(), list[bytes]()

        def write(frame: bytes) -> bool:
            written.append(frame)
            return True

        frames = list(frames)
        sent = frames.copy()

        def resume() -> None:
            del frames[: world.pump.relay(STREAM, frames)]

        world.pump.attach(STREAM, write, resume)
        session, opened = world.open(STREAM, (Family.IPV4,))
        world.pump.permit(session, peer.address.host, now(60))
        world.pump.bind_channel(session, 0x4000, peer.address, now(60))
        world.sent += len(frames)
        resume()
        await world.settled()
        remaining = iter(sent)
        assert all(any(frame == candidate for candidate in remaining) for _, frame in world.notes.messages)
        assert not written
        peer.send(b"still here", opened.addresses[0])
        await world.until(lambda: written == [channel_data(0x4000, b"still here", bytes(2))])
    finally:
        world.end()


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000), indication=st.booleans())
def test_any_data_passes_unchanged(pump_kind: PumpKind, data: bytes, indication: bool) -> None:
    asyncio.run(_any_data(pump_kind, data, indication))


async def _any_data(kind: PumpKind, data: bytes, indication: bool) -> None:
    world = World(kind)
    try:
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        if not indication:
            session.bind(0x4000, peer.address)
        session.send(send_indication(peer.address, data).encode() if indication else channel_data(0x4000, data))
        assert (await peer.receive())[0] == data
        peer.send(data, session.relayed)
        assert read_from_relay(await session.receive()) == (peer.address if indication else 0x4000, data)
    finally:
        world.end()
