"""How many connections to peers there may be, how often one is asked for, and what the log is told of either."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.turn.test_tcp_relaying import allocation_of, connection_of, control, world
from tests.turn.world import OTHER_PEER, PEER, REALM, TCP_RELAY, Client, World, code
from turnsvr.plane import ConnectPeer
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Method
from turnsvr.turn.commands import RequestRefused
from turnsvr.turn.config import RealmConfig, ServerConfig


def test_connects_under_way_are_bounded_for_each_allocation() -> None:
    there = world(peer_connects_per_allocation=3)
    client = control(there)
    for port in range(1, 4):
        assert client.connect(PEER._replace(port=port)) is None
    there.clear()
    assert code(client.connect(PEER)) == 508
    (refused,) = there.of(RequestRefused)
    assert refused.limit == "limits.peer_connects_per_allocation"
    assert control(there).connect(PEER) is None
    there.connect_fails(there.plane.connects[0].connection)
    assert code(client.check(client.mailbox()[0])) == 447
    assert client.connect(PEER) is None


def test_connections_are_bounded_for_each_allocation_and_in_total() -> None:
    there = world(peer_connections=3, peer_connections_per_allocation=2)
    client = control(there)
    for port in range(1, 3):
        connection_of(there, client, PEER._replace(port=port))
    there.clear()
    assert code(client.connect(PEER)) == 508
    assert there.of(RequestRefused)[0].limit == "limits.peer_connections_per_allocation"
    other = control(there)
    connection_of(there, other)
    there.clear()
    assert code(other.connect(OTHER_PEER)) == 508
    assert there.of(RequestRefused)[0].limit == "limits.peer_connections"
    assert there.server.peer_connections() == 3
    client.refresh((a.LIFETIME, 0))
    assert other.connect(OTHER_PEER) is None


def test_peers_that_connect_and_are_not_bound_are_bounded() -> None:
    there = world(peer_attempts_per_allocation=2)
    client = control(there)
    client.permit(PEER, OTHER_PEER)
    number = allocation_of(there, client)
    first = there.arrive(number, PEER)
    assert first is not None
    assert there.arrive(number, OTHER_PEER) is not None
    there.clear()
    assert there.arrive(number, PEER._replace(port=3)) is None
    (refused,) = there.of(RequestRefused)
    assert (refused.method, refused.username, refused.realm) == (Method.CONNECTION_ATTEMPT, "alice", REALM)
    assert (refused.code, refused.limit) == (508, "limits.peer_attempts_per_allocation")
    assert refused.five_tuple == client.five_tuple
    assert code(there.client(transport=Transport.TCP).bind_connection(first)) == 0
    assert there.arrive(number, PEER._replace(port=3)) is not None


def test_a_peer_that_floods_keeps_no_other_peer_from_connecting() -> None:
    there = world(peer_attempts_per_allocation=4)
    client = control(there)
    client.permit(PEER, OTHER_PEER)
    number = allocation_of(there, client)
    there.clear()
    arrived = [there.arrive(number, PEER._replace(port=port)) is not None for port in range(1, 10)]
    assert arrived == [True] * 2 + [False] * 7
    assert {each.limit for each in there.of(RequestRefused)} == {"limits.peer_attempts_per_allocation"}
    assert there.arrive(number, OTHER_PEER) is not None
    there.pass_time(31)
    assert there.arrive(number, PEER._replace(port=9)) is not None


def test_a_peer_that_may_not_connect_is_told_of_as_no_bound() -> None:
    there = world(peer_attempts_per_allocation=1)
    client = control(there)
    client.permit(PEER)
    number = allocation_of(there, client)
    assert there.arrive(number, PEER) is not None
    there.clear()
    assert there.arrive(number, OTHER_PEER) is None
    assert not there.of(RequestRefused)


@pytest.mark.parametrize("way", ["connects", "peers"])
def test_connections_are_bounded_for_each_user(way: str) -> None:
    """Over all allocations of its name, however the connections come about."""
    there = world(peer_connections_per_user=2)
    one, other = control(there), control(there)
    connection_of(there, one)
    connection_of(there, other)
    there.clear()
    if way == "connects":
        assert code(one.connect(OTHER_PEER)) == 508
    else:
        one.permit(OTHER_PEER)
        assert there.arrive(allocation_of(there, one), OTHER_PEER) is None
    assert [each.limit for each in there.of(RequestRefused)] == ["limits.peer_connections_per_user"]
    assert control(there, "bob").connect(PEER) is None
    one.refresh((a.LIFETIME, 0))
    assert other.connect(OTHER_PEER) is None


# How often


def answers(there: World, client: Client, ports: Iterable[int]) -> list[int]:
    """The error codes of Connects to closed ports, 447 where one was tried."""
    found = []
    for port in ports:
        answer = client.connect(PEER._replace(port=port))
        if answer is None:
            there.connect_fails(there.plane.connects[-1].connection)
            (answer,) = map(client.check, client.mailbox())
        found.append(code(answer))
    return found


def limits(there: World) -> set[str]:
    return {each.limit for each in there.of(RequestRefused)}


def test_nobody_looks_for_open_ports_through_the_server() -> None:
    """With ever other allocations of one name, from ever other addresses."""
    there = world(peer_connect_rate_per_user=2)
    client = control(there)
    assert answers(there, client, range(1, 31)) == [447] * 20 + [508] * 10
    assert limits(there) == {"limits.peer_connect_rate_per_user"}
    elsewhere = there.client(transport=Transport.TCP, address=Address("203.0.113.5", 7))
    elsewhere.allocate_tcp()
    assert answers(there, elsewhere, [1]) == [508]
    assert answers(there, control(there, "bob"), [1]) == [447]
    there.pass_time(3)
    assert answers(there, client, range(1, 10)) == [447] * 6 + [508] * 3


@pytest.mark.parametrize(
    ("hosts", "shares"),
    [
        (["198.51.100.7", "198.51.100.7"], True),
        (["198.51.100.7", "198.51.100.8"], False),
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::2"], True),
        (["2001:db8:1:2::1", "2001:db8:1:3::1"], False),
    ],
)
def test_nor_with_ever_other_names(hosts: list[str], shares: bool) -> None:
    """All users of one client address, of a /64 in IPv6, have one rate."""
    there = world(peer_connect_rate_per_address=1)
    one, other = (
        there.client(name, transport=Transport.TCP, address=Address(host, port))
        for name, host, port in zip(("alice", "bob"), hosts, (1, 2), strict=True)
    )
    one.allocate_tcp()
    other.allocate_tcp()
    assert answers(there, one, range(1, 12)) == [447] * 10 + [508]
    assert limits(there) == {"limits.peer_connect_rate_per_address"}
    assert answers(there, other, [1]) == [508 if shares else 447]


@pytest.mark.parametrize(
    "refused", ["by its address", "by its rate", "by policy", "as a second one", "for want of room"]
)
def test_a_connect_that_is_refused_spends_nothing(refused: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "by its address": {"peer_connect_rate_per_user": 0.2, "peer_connect_rate_per_address": 0.1},
        "by its rate": {"peer_connect_rate_per_user": 0.1, "peer_connect_rate_per_address": 0.2},
        "for want of room": {"peer_connect_rate_per_user": 0.2, "peer_connects_per_allocation": 1},
    }
    there = world(**settings.get(refused, {"peer_connect_rate_per_user": 0.2}))
    client = control(there)
    assert client.connect(PEER) is None
    wrong = {"by policy": Address("127.0.0.1", 80), "as a second one": PEER}.get(refused, OTHER_PEER)
    expected = {"by policy": 403, "as a second one": 446}.get(refused, 508)
    assert [code(client.connect(wrong)) for _ in range(5)] == [expected] * 5
    there.connect_fails(there.plane.connects[-1].connection)
    client.mailbox()
    if refused == "by its address":
        other = there.client(transport=Transport.TCP, address=Address("203.0.113.5", 7))
        other.allocate_tcp()
        assert answers(there, other, [1, 2]) == [447, 508]
    elif refused == "by its rate":
        assert answers(there, control(there, "bob"), [1, 2]) == [447, 508]
    else:
        assert answers(there, client, [1, 2]) == [447, 508]


def test_the_rates_follow_a_reload_and_zero_is_no_limit() -> None:
    there = world(peer_connect_rate_per_user=0.1)
    client = control(there)
    assert answers(there, client, [1, 2]) == [447, 508]
    free = ServerConfig(RealmConfig(REALM), tcp=True, peer_connect_rate_per_user=0, peer_connect_rate_per_address=0)
    there.server.reconfigure(free, there.now)
    assert set(answers(there, client, range(1, 2_000))) == {447}
    assert len(there.of(ConnectPeer)) == 2_000


def test_users_of_one_name_in_two_realms_have_a_rate_each() -> None:
    config = ServerConfig(
        RealmConfig(REALM), realms={"two": RealmConfig("two")}, tcp=True, peer_connect_rate_per_user=0.1
    )
    there = World(config)
    clients = [there.client(realm=realm, transport=Transport.TCP) for realm in (REALM, "two")]
    for each in clients:
        assert code(each.request(Method.ALLOCATE, TCP_RELAY)) == 0
    assert [answers(there, each, [1, 2]) for each in clients] == [[447, 508]] * 2
