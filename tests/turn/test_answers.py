"""Requests counted by method and outcome: each once, also those that got no answer."""

from __future__ import annotations

import pytest

from tests.turn.world import PEER, REALM, UDP_RELAY, World
from turnsvr.limits import AnswerLimiter
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Method
from turnsvr.turn import waiting as waiting_module
from turnsvr.turn.config import RealmConfig, ServerConfig


def test_each_answer_is_counted_by_its_code() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    client.permit(Address("127.0.0.1", 1))
    client.refresh((a.LIFETIME, 0))
    client.refresh()
    client.transact(client.message(Method.BINDING).encode())
    world.client("alice", "guess").refresh()
    assert world.server.answers == {
        (Method.ALLOCATE, 200): 1,
        (Method.CREATE_PERMISSION, 200): 1,
        (Method.CREATE_PERMISSION, 403): 1,
        (Method.REFRESH, 200): 1,
        (Method.REFRESH, 437): 1,
        (Method.REFRESH, 401): 3,
        (Method.BINDING, 200): 1,
    }


def test_retransmissions_that_are_answered_count() -> None:
    world = World()
    client = world.client()
    client.challenge()
    for pairs in ([UDP_RELAY], [(a.LIFETIME, 0)]):
        data = client.sign(client.message(Method.REFRESH if len(world.server) else Method.ALLOCATE, *pairs))
        assert [len(client.deliver(data)) for _ in range(3)] == [1, 1, 1]
    assert world.server.answers[Method.ALLOCATE, 200] == world.server.answers[Method.REFRESH, 200] == 3


def test_what_the_limiter_keeps_from_an_answer_counts_as_zero() -> None:
    world = World(limiter=AnswerLimiter(1))
    client = world.client()
    for method in (Method.BINDING, Method.ALLOCATE, Method.ALLOCATE):
        client.deliver(client.message(method).encode())
    assert world.server.answers == {(Method.BINDING, 200): 1, (Method.ALLOCATE, 0): 2}


def test_what_has_no_place_to_wait_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "MAX_WAITING", 1)
    world = World()
    world.hold_credentials = True
    for _ in range(3):
        client = world.client()
        client.challenge()
        client.deliver(client.sign(client.message(Method.ALLOCATE, UDP_RELAY)))
    assert world.server.answers == {(Method.REFRESH, 401): 3, (Method.ALLOCATE, 0): 2}
    world.fail_lookup(world.lookups[0])
    assert world.server.answers[Method.ALLOCATE, 500] == 1


def test_a_relay_that_cannot_be_opened_counts_once() -> None:
    world = World()
    world.hold_relays = True
    client = world.client()
    client.challenge()
    client.deliver(client.sign(client.message(Method.ALLOCATE, UDP_RELAY)))
    assert not world.server.answers[Method.ALLOCATE, 508]
    world.fail_open(world.opens[0])
    assert world.server.answers[Method.ALLOCATE, 508] == 1


def test_strangers_cannot_make_the_table_grow() -> None:
    world = World(ServerConfig(RealmConfig(REALM), rfc3489=True))
    client = world.client(transport=Transport.TCP)
    for method in range(0x1000):
        client.deliver(client.message(method).encode())
    assert {method for method, _ in world.server.answers} <= set(Method)
    assert len(world.server.answers) <= 8
