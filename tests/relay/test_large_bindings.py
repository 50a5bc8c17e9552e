"""STUN between peers that carries DTLS in Binding messages (draft-hancke-webrtc-sped): to a relay it is data."""

from __future__ import annotations

import secrets

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import FAMILIES, LOOPBACK, channel_data, read_from_relay, send_indication
from turnsvr.stun.address import Family
from turnsvr.stun.message import Class, Message, Method

DTLS = 0xC070
"""An attribute of the draft's kind, comprehension-optional, with a DTLS flight in it."""
CHANNEL = 0x4000


def binding(message_class: Class, flight: int) -> bytes:
    """A Binding message of ICE with so many bytes of DTLS."""
    message = Message(Method.BINDING, message_class, secrets.token_bytes(12))
    message._attributes.append((DTLS, b"\x16\xfe\xfd" + secrets.token_bytes(flight)))
    return message.encode(key=b"a password of ICE", fingerprint=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flight", [0, 1, 1_100, 1_197, 1_400])
@pytest.mark.parametrize("message_class", [Class.REQUEST, Class.SUCCESS, Class.INDICATION])
async def test_they_pass_untouched(
    pump_factory: PumpFactory, family: Family, flight: int, message_class: Class
) -> None:
    """From the client by channel and by Send, to it by channel and by Data; nobody answers or judges them."""
    world = pump_factory()
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(LOOPBACK[family])
    data = binding(message_class, flight)
    session.send(send_indication(peer.address, data).encode())
    assert await peer.receive() == (data, session.relayed)
    peer.send(data, session.relayed)
    assert read_from_relay(await session.receive()) == (peer.address, data)
    session.bind(CHANNEL, peer.address)
    session.send(channel_data(CHANNEL, data))
    assert await peer.receive() == (data, session.relayed)
    peer.send(data, session.relayed)
    assert read_from_relay(await session.receive()) == (CHANNEL, data)
    await world.settled()
    assert not world.notes.messages


async def test_a_plain_binding_request_of_a_peer_is_data_as_well(pump_factory: PumpFactory) -> None:
    """Of 20 bytes, which a listener would answer."""
    world = pump_factory()
    one, other = world.session(), world.session()
    for session, peer in ((one, other), (other, one)):
        session.permit(LOOPBACK[Family.IPV4])
        session.bind(CHANNEL, peer.relayed)
    data = Message(Method.BINDING, Class.REQUEST, secrets.token_bytes(12)).encode()
    one.send(channel_data(CHANNEL, data))
    assert read_from_relay(await other.receive()) == (CHANNEL, data)
    assert (await world.settled(inside=1)).binding_answers == 0


async def test_trains_of_them_pass_in_order(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer = world.session(), world.endpoint()
    session.permit(LOOPBACK[Family.IPV4])
    session.bind(CHANNEL, peer.address)
    flights = [binding(Class.REQUEST, 1_150 + at % 3) for at in range(30)]
    for data in flights:
        session.send(channel_data(CHANNEL, data))
    assert [(await peer.receive())[0] for _ in flights] == flights
    for data in flights:
        peer.send(data, session.relayed)
    assert [read_from_relay(await session.receive()) for _ in flights] == [(CHANNEL, data) for data in flights]
