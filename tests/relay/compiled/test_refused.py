"""Where the kernel takes no segments: packets leave one by one from then on, none is lost, and one line tells of it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import structlog

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.descriptors import udp_sockets
from tests.relay.compiled.trains import numbered, send_train
from tests.relay.world import LOOPBACK, Session, channel_data, read_from_relay
from turnsvr.stun.address import Address, Family

CHANNEL = 0x4000
BINDING = b"\x00\x01\x00\x00\x21\x12\xa4\x42"
COUNT = 16
_SO_NO_CHECK = 11


def refuse_segments(address: Address) -> None:
    """Have the kernel refuse segments (EINVAL) at this process's UDP socket that is bound there, for want of sums."""
    for _, found in udp_sockets():
        if found.getsockname()[:2] == tuple(address):
            found.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
            return
    raise AssertionError(f"nothing is bound to {address}")


def at_the_relay(session: Session) -> Address:
    return session.relayed


def at_the_listener(session: Session) -> Address:
    return session.five_tuple.server


@pytest.mark.parametrize("refusing", [at_the_relay, at_the_listener])
async def test_no_packet_is_lost_and_one_line_tells(
    make_world: WorldFactory, refusing: Callable[[Session], Address]
) -> None:
    world = make_world()
    session, peer = world.session(Family.IPV4), world.endpoint(LOOPBACK[Family.IPV4])
    session.permit(peer.address.host)
    session.bind(CHANNEL, peer.address)
    refuse_segments(refusing(session))
    payloads = numbered(COUNT, 100)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            send_train(
                world, session.endpoint, [channel_data(CHANNEL, data) for data in payloads], session.five_tuple.server
            )
            assert [(await peer.receive())[0] for _ in payloads] == payloads
            send_train(world, peer, payloads, session.relayed)
            got = [read_from_relay(await session.receive()) for _ in payloads]
            assert got == [(CHANNEL, data) for data in payloads]
        totals = await world.settled()
        await world.until(lambda: bool(logs))
    assert not sum(totals.drops.values())
    # In vain once, at a relay twice for an ICMP error might be why, then one a packet; one a train on the other path.
    assert totals.sends <= 2 + 3 * COUNT + 3
    assert [entry["log_level"] for entry in logs] == ["warning"]


async def test_answers_leave_one_by_one_as_well(make_world: WorldFactory) -> None:
    world = make_world()
    client, server = world.endpoint(), world.listeners[Family.IPV4]
    refuse_segments(server)
    transactions = [bytes((at,)) * 12 for at in range(COUNT)]
    for _ in range(3):
        send_train(world, client, [BINDING + transaction for transaction in transactions], server)
        got = [(await client.receive())[0] for _ in transactions]
        assert [answer[8:20] for answer in got] == transactions
    totals = await world.settled()
    assert (totals.binding_answers, sum(totals.drops.values())) == (3 * COUNT, 0)
    assert totals.sends <= 1 + 3 * COUNT
