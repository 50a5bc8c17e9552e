"""Answers that come late: credentials and relays, after the client, the allocation or the server is gone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.turn.test_allocate import DUAL, PAIR
from tests.turn.world import PEER, REALM, UDP_RELAY, Client, Pair, World, code
from turnsvr.plane import OpenRelay
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message, Method
from turnsvr.turn import waiting as waiting_module
from turnsvr.turn.commands import AllocationEnded, AllocationStarted, CloseRelay, EndReason, FindCredential
from turnsvr.turn.config import RealmConfig, ServerConfig

# Credentials


def waiting(world: World, **how: Any) -> tuple[Client, bytes]:
    """A client whose Allocate waits for its credential, and that request."""
    world.hold_credentials = True
    client = world.client(**how)
    client.challenge()
    data = client.sign(client.message(Method.ALLOCATE, UDP_RELAY))
    assert not client.deliver(data)
    return client, data


def test_a_late_credential_is_as_good() -> None:
    world = World()
    client, _ = waiting(world)
    world.pass_time(5)
    world.answer_all()
    assert [code(client.check(data)) for data in client.mailbox()] == [0]


def test_a_retransmission_meanwhile_is_looked_up_once() -> None:
    world = World()
    client, data = waiting(world)
    assert not client.deliver(data)
    assert len(world.of(FindCredential)) == 1
    world.answer_all()
    assert len(client.mailbox()) == 1


def test_a_nonce_that_was_fresh_when_it_came_stays_fresh() -> None:
    world = World(ServerConfig(RealmConfig(REALM), nonce_lifetime=3))
    client, _ = waiting(world)
    world.pass_time(10)
    world.answer_all()
    assert [code(client.check(data)) for data in client.mailbox()] == [0]


def test_a_lookup_that_fails_is_500_without_integrity() -> None:
    world = World()
    client, data = waiting(world)
    world.fail_lookup(world.lookups[0])
    world.carry_out()
    (answer,) = map(client.check, client.mailbox())
    assert code(answer) == 500
    assert a.MESSAGE_INTEGRITY not in answer
    world.hold_credentials = False
    assert code(client.transact(data)) == 0


def test_a_credential_after_the_connection_closed_is_nothing() -> None:
    world = World()
    client, _ = waiting(world, transport=Transport.TCP)
    client.disconnect()
    world.answer_all()
    assert not client.mailbox()
    assert len(world.server) == 0
    assert not world.of(OpenRelay)


def test_a_credential_after_shutdown_is_nothing() -> None:
    world = World()
    client, _ = waiting(world)
    world.server.shutdown(world.now)
    world.answer_all()
    assert not client.mailbox()
    assert not world.of(OpenRelay)


def test_a_credential_after_drain_is_508() -> None:
    world = World()
    client, _ = waiting(world)
    world.server.drain()
    world.answer_all()
    assert [code(client.check(data)) for data in client.mailbox()] == [508]


def test_an_answer_that_comes_twice_counts_once() -> None:
    world = World()
    client, _ = waiting(world)
    lookup = world.lookups[0]
    world.answer_all()
    world.server.credential(lookup.request, world.keys(lookup), world.now)
    world.server.credential_failed(lookup.request, world.now)
    world.server.credential(10**9, (), world.now)
    world.carry_out()
    assert len(client.mailbox()) == 1


def test_two_requests_of_one_client_wait_side_by_side() -> None:
    world = World()
    client, _ = waiting(world)
    assert not client.deliver(client.sign(client.message(Method.CREATE_PERMISSION, (a.XOR_PEER_ADDRESS, PEER))))
    for lookup in reversed(list(world.lookups)):
        world.answer_lookup(lookup)
        world.carry_out()
    assert [code(client.check(data)) for data in client.mailbox()] == [437, 0]


def test_requests_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "MAX_WAITING", 5)
    world = World()
    world.hold_credentials = True
    for _ in range(20):
        client = world.client()
        client.challenge()
        assert not client.deliver(client.sign(client.message(Method.REFRESH)))
    assert len(world.server._waiting) == len(world.server._waiting._asked) == len(world.lookups) == 5
    world.answer_all()
    assert not len(world.server._waiting)
    client = world.client()
    assert not client.deliver(client.sign(client.message(Method.REFRESH)))
    assert len(world.lookups) == 1


def test_a_live_allocation_needs_no_lookup_while_the_source_is_slow() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.hold_credentials = True
    assert code(client.refresh()) == code(client.permit(PEER)) == 0


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_a_request_is_about_the_allocation_that_there_was_when_it_came(method: int) -> None:
    """Over UDP, where the same addresses are one five-tuple: what waited for the first allocation leaves the next."""
    world = World()
    alice = world.client()
    alice.allocate()
    bob = world.client("bob", address=alice.five_tuple.client)
    bob.challenge()
    world.hold_credentials = True
    pairs: dict[int, list[Pair]] = {
        Method.REFRESH: [(a.LIFETIME, 0)],
        Method.CREATE_PERMISSION: [(a.XOR_PEER_ADDRESS, PEER)],
        Method.CHANNEL_BIND: [(a.CHANNEL_NUMBER, 0x4000), (a.XOR_PEER_ADDRESS, PEER)],
    }
    assert not bob.deliver(bob.sign(bob.message(method, *pairs[method])))
    world.hold_credentials = False
    alice.refresh((a.LIFETIME, 0))
    assert code(bob.allocate()) == 0
    world.answer_all()
    assert [code(bob.check(data)) for data in bob.mailbox()] == [ErrorCode.ALLOCATION_MISMATCH]
    assert len(world.server) == 1
    assert not bob.channel_data(0x4000, b"data")
    assert not bob.send(PEER, b"data")


def test_a_request_of_a_connection_that_is_gone_is_not_the_next_ones() -> None:
    world = World()
    gone, _ = waiting(world, transport=Transport.TCP)
    gone.disconnect()
    world.hold_credentials = False
    bob = world.client("bob", address=gone.five_tuple.client, transport=Transport.TCP)
    bob.five_tuple = bob.five_tuple._replace(connection=2)
    assert code(bob.allocate()) == 0
    world.answer_all()
    assert not bob.mailbox()
    gone.disconnect()
    assert len(world.server) == 1


# Relays


def opening(world: World, *pairs: Pair, **how: Any) -> Client:
    world.hold_relays = True
    client = world.client(**how)
    client.challenge()
    assert not client.deliver(client.sign(client.message(Method.ALLOCATE, UDP_RELAY, *pairs)))
    return client


def clean(world: World) -> None:
    """Nothing is left of what was opened in vain."""
    assert len(world.server) == 0
    assert not world.plane.sessions
    assert not world.plane.held
    assert not world.server._state.pending
    assert not world.server._state.reservations
    assert not world.of(AllocationStarted)
    assert not world.of(AllocationEnded)
    assert world.server.next_timeout() is None


def test_a_relay_that_opens_late_lives_from_then_on() -> None:
    world = World()
    client = opening(world)
    world.pass_time(10)
    world.answer_all()
    (answer,) = map(client.check, client.mailbox())
    assert answer.get(a.LIFETIME) == 600
    assert world.plane.sessions[1].deadline == world.now + 600
    world.pass_time(599.9)
    assert len(world.server) == 1
    world.pass_time(0.1)
    assert len(world.server) == 0


def test_a_relay_after_the_connection_closed_is_closed_with_the_port_held_for_it() -> None:
    world = World()
    client = opening(world, PAIR, transport=Transport.TCP)
    client.disconnect()
    assert len(world.server) == 0
    world.answer_all()
    assert not client.mailbox()
    clean(world)


def test_a_relay_after_shutdown_is_closed() -> None:
    world = World()
    client = opening(world, PAIR)
    world.server.shutdown(world.now)
    world.carry_out()
    world.answer_all()
    assert not client.mailbox()
    clean(world)


def test_a_relay_after_the_operator_ended_it_is_closed() -> None:
    world = World()
    client = opening(world, DUAL)
    number = world.server.allocation_of(client.five_tuple)
    assert number is not None
    world.server.end(number, EndReason.REVOKED, world.now)
    world.carry_out()
    world.answer_all()
    clean(world)


def test_a_relay_that_nobody_asked_for_is_closed() -> None:
    world = World()
    world.server.relay_opened(7, [PEER], {}, world.now)
    world.server.relay_failed(8, ErrorCode.INSUFFICIENT_CAPACITY, world.now)
    assert world.server.commands() == [CloseRelay(7)]


def test_a_failure_after_the_connection_closed_is_nothing() -> None:
    world = World()
    client = opening(world, transport=Transport.TCP)
    client.disconnect()
    world.fail_open(world.opens[0])
    world.carry_out()
    assert not client.mailbox()
    clean(world)


@pytest.mark.parametrize("fails", [True, False])
def test_a_claimed_port_is_given_up_when_its_claim_comes_to_nothing(fails: bool) -> None:
    world = World()
    token = world.client().allocate(PAIR).get(a.RESERVATION_TOKEN)
    client = opening(world, (a.RESERVATION_TOKEN, token), transport=Transport.TCP)
    if fails:
        world.fail_open(world.opens[0])
        world.carry_out()
        assert [code(client.check(data)) for data in client.mailbox()] == [508]
    else:
        client.disconnect()
        world.answer_all()
    assert not world.plane.held
    assert len(world.plane.sessions) == 1


def test_a_late_relay_does_not_answer_the_next_allocate_of_the_same_client() -> None:
    world = World()
    client = opening(world, transport=Transport.TCP)
    client.disconnect()
    world.hold_relays = False
    second = client.allocate()
    assert code(second) == 0
    world.answer_all()
    assert not client.mailbox()
    assert list(world.plane.sessions) == [2]


def test_relays_being_opened_count_in_every_quota() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=2), allocations=3, reservations=2))
    opening(world, PAIR)
    client = opening(world, PAIR, transport=Transport.TCP)
    assert code(world.client().allocate()) == 486
    client.disconnect()
    assert code(world.client("bob").allocate(PAIR)) == 508
    world.hold_relays = False
    assert code(world.client("bob").allocate()) == 0
    assert code(world.client("bob").allocate()) == 508
    world.answer_all()
    assert code(world.client("bob").allocate()) == 0


def test_the_reservation_of_a_late_relay_counts_from_its_answer() -> None:
    world = World()
    client = opening(world, PAIR)
    world.pass_time(100)
    world.hold_relays = False
    world.answer_all()
    token = Message.parse(client.mailbox()[0]).get(a.RESERVATION_TOKEN)
    world.pass_time(29)
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token))) == 0
