"""What the table covers passes both ways, byte for byte."""

from __future__ import annotations

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import FAMILIES, LOOPBACK, channel_data, read_from_relay, send_indication
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import (
    DATA,
    DONT_FRAGMENT,
    LIFETIME,
    SOFTWARE,
    USERNAME,
    XOR_PEER_ADDRESS,
)
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Class, Message, Method

families = pytest.mark.parametrize("family", FAMILIES)
SIZES = [0, 1, 2, 3, 4, 5, 160, 1000, 1471, 1472, 1473, 9000]


@families
@pytest.mark.parametrize("size", SIZES)
async def test_channel_data_both_ways(pump_factory: PumpFactory, family: Family, size: int) -> None:
    world = pump_factory()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    session.bind(0x4ABC, peer.address)
    data = bytes(at % 251 for at in range(size))
    session.send(channel_data(0x4ABC, data))
    assert await peer.receive() == (data, session.relayed)
    peer.send(data, session.relayed)
    assert await session.receive() == channel_data(0x4ABC, data)
    await world.settled()
    assert world.pump.counters(session.number) == Counters(1, size, 1, size, 0)


@families
@pytest.mark.parametrize("size", SIZES)
async def test_indications_both_ways(pump_factory: PumpFactory, family: Family, size: int) -> None:
    world = pump_factory()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    data = bytes(at % 249 for at in range(size))
    session.send(send_indication(peer.address, data).encode())
    assert await peer.receive() == (data, session.relayed)
    peer.send(data, session.relayed)
    assert read_from_relay(await session.receive()) == (peer.address, data)
    assert not world.notes.messages


@families
async def test_the_answer_leaves_from_the_address_the_client_talks_to(
    pump_factory: PumpFactory, family: Family
) -> None:
    world = pump_factory()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    peer.send(b"hello", session.relayed)
    assert (await session.endpoint.receive())[1] == session.five_tuple.server


@families
async def test_the_largest_datagram_that_fits(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address)
    data = bytes(65_503)
    session.send(channel_data(0x4000, data))
    assert (await peer.receive())[0] == data
    peer.send(data, session.relayed)
    assert await session.receive() == channel_data(0x4000, data)


async def test_data_that_no_datagram_to_the_client_can_hold_is_dropped(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host)
    peer.send(bytes(65_507), session.relayed)
    await world.dropped(Drop.SEND_FAILED)


@pytest.mark.parametrize("padding", [b"\0", b"\xff\xff", bytes(3)])
async def test_channel_data_may_carry_padding_on_datagrams(pump_factory: PumpFactory, padding: bytes) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"abc", padding))
    assert (await peer.receive())[0] == b"abc"


@pytest.mark.parametrize("channel", [0x4000, 0x4FFF, 0x5000, 0x7FFF])
async def test_every_channel_number_that_deployed_clients_use(pump_factory: PumpFactory, channel: int) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host)
    session.bind(channel, peer.address)
    session.send(channel_data(channel, b"abc"))
    assert (await peer.receive())[0] == b"abc"
    peer.send(b"def", session.relayed)
    assert await session.receive() == channel_data(channel, b"def")


async def test_a_burst_arrives_whole_and_in_order(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address)
    burst = [bytes([number]) * (100 if number % 5 else 37) for number in range(100)]
    for data in burst:
        session.send(channel_data(0x4000, data))
    assert [(await peer.receive())[0] for _ in burst] == burst
    for data in burst:
        peer.send(data, session.relayed)
    assert [await session.receive() for _ in burst] == [channel_data(0x4000, data) for data in burst]


async def test_clients_and_peers_do_not_mix(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    sessions = [world.session() for _ in range(4)]
    peers = [world.endpoint() for _ in range(3)]
    for session in sessions:
        session.permit("127.0.0.1")
        for number, peer in enumerate(peers):
            session.bind(0x4000 + number, peer.address)
    for session in sessions:
        for number, peer in enumerate(peers):
            data = f"{session.number} {number}".encode()
            session.send(channel_data(0x4000 + number, data))
            assert await peer.receive() == (data, session.relayed)
            peer.send(data, session.relayed)
            assert await session.receive() == channel_data(0x4000 + number, data)


async def test_transaction_ids_of_data_indications_differ(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(peer.address.host)
    ids = set()
    for _ in range(300):
        peer.send(b"x", session.relayed)
        ids.add((await session.receive())[8:20])
    assert len(ids) == 300


class TestSendIndications:
    """Which of them the pump relays, and which the rules must see."""

    async def test_extras_that_need_no_rule(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        message = Message(Method.SEND, Class.INDICATION, bytes(12))
        message.add(SOFTWARE, "odd").add(DATA, b"abc").add(DONT_FRAGMENT, True).add(XOR_PEER_ADDRESS, peer.address)
        session.send(message.encode())
        assert (await peer.receive())[0] == b"abc"
        assert not world.notes.messages

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 7, 8, 1000, 1401])
    async def test_a_right_fingerprint_needs_no_rule(
        self, pump_factory: PumpFactory, family: Family, size: int
    ) -> None:
        world = pump_factory()
        session, peer = world.session(family), world.endpoint(LOOPBACK[family])
        session.permit(peer.address.host)
        data = bytes(at % 251 for at in range(size))
        session.send(send_indication(peer.address, data).encode(fingerprint=True))
        assert (await peer.receive())[0] == data
        await world.settled()
        assert not world.notes.messages

    async def test_any_other_fingerprint_goes_up(self, pump_factory: PumpFactory) -> None:
        """Wrong in any bit, not the last attribute, or of another size."""
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        plain = send_indication(peer.address, b"abcde")
        right = plain.encode(fingerprint=True)
        others = [right[:-4] + (int.from_bytes(right[-4:], "big") ^ 1 << bit).to_bytes(4, "big") for bit in range(32)]
        others += [right[:at] + bytes((right[at] ^ 1,)) + right[at + 1 :] for at in (8, 19, 30, 40)]
        for tail in (right[-8:] * 2, right[-8:] + b"\x80\x22\0\0", b"\x80\x28\0\0", b"\x80\x28\0\x08" + bytes(8)):
            body = right[20:-8] + tail
            others.append(right[:2] + len(body).to_bytes(2, "big") + right[4:20] + body)
        for message in others:
            session.send(message)
        await world.until(lambda: len(world.notes.messages) == len(others))
        assert [data for _, data in world.notes.messages] == others
        assert not peer.waiting()
        for message in others:
            with pytest.raises(MalformedMessage):
                Message.parse(message)

    async def test_any_other_content_goes_up(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        plain = send_indication(peer.address, b"abc")

        def empty() -> Message:
            return Message(Method.SEND, Class.INDICATION, bytes(12))

        whole = [
            empty().encode(),
            empty().add(DATA, b"abc").encode(),
            empty().add(XOR_PEER_ADDRESS, peer.address).encode(),
            plain.encode(key=b"key"),
            send_indication(peer.address, b"abc").add(DATA, b"abc").encode(),
            send_indication(peer.address, b"abc").add(XOR_PEER_ADDRESS, peer.address).encode(),
            send_indication(peer.address, b"abc").add(USERNAME, "user").encode(),
            send_indication(peer.address, b"abc").add(LIFETIME, 1).encode(),
            # A DONT-FRAGMENT with a value, an address of no family, an attribute that runs past the end.
            _with_attribute(plain, b"\x00\x1a\x00\x04abcd"),
            _with_attribute(empty().add(DATA, b"abc"), b"\x00\x12\x00\x08\x00\x07abcdef"),
            _with_attribute(empty().add(DATA, b"abc"), b"\x00\x12\x00\x04\x00\x01ab"),
            _with_attribute(empty().add(XOR_PEER_ADDRESS, peer.address), b"\x00\x13\xff\xffabcd"),
            # RFC 3489 knows no cookie.
            b"\x00\x16\x00\x00" + bytes(16),
        ]
        for message in whole:
            session.send(message)
        await world.until(lambda: len(world.notes.messages) == len(whole))
        assert world.notes.messages == [(session.five_tuple, message) for message in whole]
        await world.settled()
        assert not peer.waiting()

    async def test_without_a_live_session_it_goes_up(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        peer, stranger = world.endpoint(), world.endpoint()
        expired = world.session(offset=-1)
        expired.permit(peer.address.host)
        message = send_indication(peer.address, b"abc").encode()
        expired.send(message)
        stranger.send(message, expired.five_tuple.server)
        await world.until(lambda: len(world.notes.messages) == 2)
        await world.settled()
        assert not peer.waiting()

    async def test_port_zero_is_no_peer(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session = world.session()
        session.permit("127.0.0.1")
        session.bind(0x4000, Address("127.0.0.1", 0))
        session.send(send_indication(Address("127.0.0.1", 0), b"abc").encode())
        session.send(channel_data(0x4000, b"abc"))
        await world.dropped(Drop.MALFORMED, 2)

    async def test_dont_fragment_can_be_asked_for_packet_by_packet(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        session, peer = world.session(), world.endpoint()
        session.permit(peer.address.host)
        for number in range(4):
            message = send_indication(peer.address, bytes([number]))
            if number % 2:
                message.add(DONT_FRAGMENT, True)
            session.send(message.encode())
            assert (await peer.receive())[0] == bytes([number])


class TestSendToPeer:
    @families
    async def test_relays(self, pump_factory: PumpFactory, family: Family) -> None:
        world = pump_factory()
        session, peer = world.session(family), world.endpoint(LOOPBACK[family])
        session.permit(peer.address.host)
        world.pump.send_to_peer(session.number, peer.address, b"abc", dont_fragment=False)
        assert await peer.receive() == (b"abc", session.relayed)
        world.pump.send_to_peer(session.number, peer.address, b"def", dont_fragment=True)
        assert await peer.receive() == (b"def", session.relayed)

        def counted() -> bool:
            return world.pump.counters(session.number) == Counters(2, 6, 0, 0, 0)

        await world.until(counted)

    async def test_checks_permission_and_deadline_again(self, pump_factory: PumpFactory) -> None:
        world = pump_factory()
        peer = world.endpoint()
        session, late, expired = world.session(), world.session(), world.session(offset=-1)
        late.permit(peer.address.host, offset=-1)
        expired.permit(peer.address.host)
        for each in (session, late, expired):
            world.pump.send_to_peer(each.number, peer.address, b"abc", dont_fragment=False)
        world.pump.send_to_peer(4711, peer.address, b"abc", dont_fragment=False)
        await world.until(lambda: sum(world.pump.totals().drops.values()) == 4)
        drops = {reason: count for reason, count in world.pump.totals().drops.items() if count}
        assert drops == {Drop.NO_PERMISSION: 1, Drop.EXPIRED: 2, Drop.NO_SESSION: 1}
        assert not peer.waiting()


def _with_attribute(message: Message, attribute: bytes) -> bytes:
    data = message.encode() + attribute
    return data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
