"""Refresh, and how allocations end (RFC 8656 section 8)."""

from __future__ import annotations

import pytest

from tests.turn.test_allocate import DUAL
from tests.turn.world import OTHER_PEER, PEER, PEER_V6, REALM, World, code, names
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.message import Message, Method
from turnsvr.turn.commands import AllocationEnded, AllocationRefreshed, CloseRelay, EndReason
from turnsvr.turn.config import RealmConfig, ServerConfig

ZERO = (a.LIFETIME, 0)


@pytest.mark.parametrize(("asked", "granted"), [(None, 600), (1, 600), (900, 900), (5000, 3600)])
def test_the_time_to_expiry_starts_anew(asked: int | None, granted: int) -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.pass_time(500)
    answer = client.refresh(*([] if asked is None else [(a.LIFETIME, asked)]))
    assert names(answer) == ["LIFETIME", "SOFTWARE", "MESSAGE-INTEGRITY"]
    assert answer.get(a.LIFETIME) == granted
    assert world.plane.sessions[1].deadline == world.now + granted
    world.pass_time(granted - 0.001)
    assert len(world.server) == 1
    world.pass_time(0.001)
    assert len(world.server) == 0


def test_it_is_told_with_what_was_granted_but_an_end_is_no_refresh() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.refresh((a.LIFETIME, 900))
    client.refresh(ZERO)
    told = [event for event in world.events if isinstance(event, AllocationRefreshed)]
    assert told == [AllocationRefreshed(1, 900)]


def test_a_shorter_lifetime_is_taken_too() -> None:
    world = World()
    client = world.client()
    client.allocate((a.LIFETIME, 3600))
    client.refresh((a.LIFETIME, 700))
    world.pass_time(700)
    assert len(world.server) == 0


def test_without_an_allocation_is_437() -> None:
    answer = World().client().refresh()
    assert code(answer) == 437
    assert names(answer) == ["ERROR-CODE", "SOFTWARE", "MESSAGE-INTEGRITY"]


def test_another_user_is_441() -> None:
    world = World()
    client = world.client()
    client.allocate()
    other = world.client("bob", address=client.five_tuple.client)
    assert code(other.refresh()) == 441
    assert code(other.refresh(ZERO)) == 441
    assert code(client.refresh()) == 0


def test_zero_ends_it() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    client.bind(0x4000, PEER)
    answer = client.refresh(ZERO)
    assert answer.get(a.LIFETIME) == 0
    assert not world.plane.sessions
    assert [event.reason for event in world.of(AllocationEnded)] == [EndReason.REFRESHED_TO_ZERO]
    assert world.server.next_timeout() is None
    assert code(client.refresh()) == 437


def test_zero_again_with_the_same_transaction_gets_the_same_answer() -> None:
    world = World()
    client = world.client()
    client.allocate()
    data = client.sign(client.message(Method.REFRESH, ZERO))
    first = client.deliver(data)
    assert first
    assert client.deliver(data) == first
    world.pass_time(40)
    assert code(client.transact(data)) == 437


def test_a_retransmitted_zero_does_not_end_the_next_allocation() -> None:
    world = World()
    client = world.client()
    client.allocate()
    data = client.sign(client.message(Method.REFRESH, ZERO))
    client.deliver(data)
    client.allocate()
    assert code(client.transact(data)) == 0
    assert len(world.server) == 1


def test_answers_kept_for_retransmissions_are_bounded() -> None:
    world = World(ServerConfig(RealmConfig(REALM), allocation_rate_per_user=0))
    client = world.client()
    client.challenge()
    for _ in range(1100):
        client.allocate()
        client.refresh(ZERO)
    assert len(world.server._state.allocations._finished) == 1024


@pytest.mark.parametrize("family", Family)
def test_a_family_that_matches(family: Family) -> None:
    client = World().client()
    client.allocate((a.REQUESTED_ADDRESS_FAMILY, family))
    assert code(client.refresh((a.REQUESTED_ADDRESS_FAMILY, family))) == 0


@pytest.mark.parametrize("family", [0, 2, 7])
def test_a_family_that_does_not_match_is_443(family: int) -> None:
    client = World().client()
    client.allocate()
    assert code(client.refresh((a.REQUESTED_ADDRESS_FAMILY, family))) == 443


def test_a_dual_allocation_is_refreshed_as_one() -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL)
    world.pass_time(599)
    client.refresh()
    world.pass_time(599)
    assert set(world.plane.sessions[1].relayed) == set(Family)
    world.pass_time(1)
    assert len(world.server) == 0


@pytest.mark.parametrize("kept", Family)
def test_one_family_of_a_dual_allocation_may_run_out(kept: Family) -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL)
    client.permit(PEER, PEER_V6)
    client.bind(0x4000, PEER)
    client.bind(0x4001, PEER_V6)
    world.pass_time(200)
    client.permit(PEER, PEER_V6)
    client.refresh((a.REQUESTED_ADDRESS_FAMILY, kept), (a.LIFETIME, 900))
    world.pass_time(250)
    client.permit(PEER, PEER_V6)
    world.pass_time(150)
    session = world.plane.sessions[1]
    assert set(session.relayed) == {kept}
    expected = PEER if kept is Family.IPV4 else PEER_V6
    assert list(session.permissions) == [expected.host]
    assert bool(client.send(PEER, b"x")) == (kept is Family.IPV4)
    assert bool(client.send(PEER_V6, b"x")) == (kept is Family.IPV6)
    world.pass_time(500)
    assert len(world.server) == 0


def test_zero_for_one_family_of_a_dual_allocation() -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL)
    client.permit(PEER, PEER_V6)
    data = client.sign(client.message(Method.REFRESH, ZERO, (a.REQUESTED_ADDRESS_FAMILY, 2)))
    first = client.deliver(data)
    assert world.of(CloseRelay) == [CloseRelay(1, Family.IPV6)]
    assert client.deliver(data) == first
    assert client.send(PEER, b"x")
    assert not client.send(PEER_V6, b"x")
    assert code(client.permit(PEER_V6)) == 443
    assert code(client.refresh(ZERO)) == 0
    assert len(world.server) == 0


def test_the_connection_takes_its_allocation_along() -> None:
    world = World()
    client = world.client(transport=Transport.TCP)
    client.allocate()
    client.disconnect()
    assert [event.reason for event in world.of(AllocationEnded)] == [EndReason.DISCONNECTED]
    assert not world.plane.sessions
    assert world.server.next_timeout() is None


def test_the_operator_ends_one() -> None:
    world = World()
    first, second = world.client(), world.client()
    first.allocate()
    second.allocate()
    number = world.server.allocation_of(first.five_tuple)
    assert number is not None
    world.server.end(number, EndReason.REVOKED, world.now)
    world.server.end(999, EndReason.REVOKED, world.now)
    world.carry_out()
    assert world.server.allocation_of(first.five_tuple) is None
    assert len(world.server) == 1
    assert code(first.refresh()) == 437


def test_shutdown_ends_all() -> None:
    world = World()
    for number in range(3):
        client = world.client()
        client.allocate((a.EVEN_PORT, a.EvenPort(True)))
        client.permit(PEER, OTHER_PEER)
        client.bind(0x4000 + number, PEER)
    world.server.shutdown(world.now)
    world.carry_out()
    assert {event.reason for event in world.of(AllocationEnded)} == {EndReason.SHUTDOWN}
    assert not world.plane.sessions
    assert not world.plane.held
    assert len(world.server) == 0
    assert world.server.next_timeout() is None
    assert code(client.allocate()) == 508


def test_a_new_config_lets_allocations_live_on() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.server.reconfigure(
        ServerConfig(RealmConfig(REALM), max_lifetime=100, families=frozenset({Family.IPV6})), world.now
    )
    answer = client.refresh()
    assert answer.get(a.LIFETIME) == 100
    assert code(world.client().allocate()) == 440


def test_expiry_is_checked_by_the_message_that_comes_before_the_timer() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    nonce = client.nonce
    world.now += 600
    assert not client.send(PEER, b"late")
    assert len(world.server) == 0
    client.nonce = nonce
    assert code(client.refresh()) == 437


def test_an_allocation_cannot_be_found_by_a_neighbour() -> None:
    world = World()
    client = world.client()
    client.allocate()
    tcp = world.client(address=client.five_tuple.client, transport=Transport.TCP)
    other_server = world.client(address=client.five_tuple.client, server=Address("192.0.2.2", 3478))
    assert [code(tcp.refresh()), code(other_server.refresh())] == [437, 437]


def test_software_is_in_every_answer_to_refresh() -> None:
    client = World().client()
    answers: list[Message] = [client.refresh(), client.allocate(), client.refresh(), client.refresh(ZERO)]
    assert all("SOFTWARE" in names(answer) for answer in answers)
