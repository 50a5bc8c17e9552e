"""How many allocations there may be and how often, and what the log is told of a bound that a user meets."""

from __future__ import annotations

import pytest

from tests.turn.test_allocate import PAIR
from tests.turn.test_authentication import timed
from tests.turn.test_realms import Special
from tests.turn.world import OTHER_PEER, PEER, REALM, Client, World, code
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Family
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Method
from turnsvr.turn.commands import RequestRefused
from turnsvr.turn.config import RealmConfig, ServerConfig


def refusals(world: World) -> list[tuple[int, str, str, int, str]]:
    return [
        (event.method, event.username, event.realm, event.code, event.limit)
        for event in world.events
        if isinstance(event, RequestRefused)
    ]


def test_a_met_quota_is_told_with_its_setting() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=1)))
    world.client().allocate()
    client = world.client()
    assert code(client.allocate()) == 486
    assert refusals(world) == [(Method.ALLOCATE, "alice", REALM, 486, "limits.allocations_per_user")]
    (event,) = [event for event in world.events if isinstance(event, RequestRefused)]
    assert event.five_tuple == client.five_tuple


def test_a_quota_by_name_is_told_under_that_name() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=1)), source=SharedSecrets(["secret"]))
    for ttl in (10, 20):
        timed(world, "secret", "carol", ttl=ttl).allocate()
    assert refusals(world) == [(Method.ALLOCATE, "carol", REALM, 486, "limits.allocations_per_user")]


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (ServerConfig(RealmConfig(REALM), allocations=1), "limits.allocations"),
        (ServerConfig(RealmConfig(REALM, allocations=1)), f"realms.{REALM}.limits.allocations"),
        (ServerConfig(RealmConfig(REALM), reservations=1), "reserved ports of the server"),
        (
            ServerConfig(RealmConfig(REALM, allocations_per_user=0), allocation_rate_per_user=0.1),
            "limits.allocation_rate_per_user",
        ),
    ],
)
def test_every_bound_of_allocations_is_told(config: ServerConfig, limit: str) -> None:
    world = World(config)
    world.client().allocate(PAIR)
    assert code(world.client().allocate(PAIR)) in {486, 508}
    assert [event[-1] for event in refusals(world)] == [limit]


def test_draining_and_a_want_of_ports_are_told() -> None:
    world = World()
    world.plane.broken = {Family.IPV4: ErrorCode.INSUFFICIENT_CAPACITY}
    assert code(world.client().allocate()) == 508
    world.server.drain()
    assert code(world.client().allocate()) == 508
    assert [event[-1] for event in refusals(world)] == ["relay.ports", "draining"]


def test_bounds_of_permissions_and_channels_are_told() -> None:
    world = World(ServerConfig(RealmConfig(REALM), permissions_per_allocation=1, channels_per_allocation=1))
    client = world.client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert code(client.bind(0x4001, PEER._replace(port=9))) == code(client.permit(OTHER_PEER)) == 508
    assert [event[::4] for event in refusals(world)] == [
        (Method.CHANNEL_BIND, "limits.channels_per_allocation"),
        (Method.CREATE_PERMISSION, "limits.permissions_per_allocation"),
    ]


def test_a_stranger_and_a_mistake_are_told_to_nobody() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=1)))
    world.client("alice", "wrong").allocate()
    client = world.client()
    client.allocate()
    client.allocate()
    client.bind(0x3FFF, PEER)
    assert not refusals(world)


def cycle(client: Client) -> int:
    """Make an allocation and end it; the error code of the first."""
    answer = code(client.allocate())
    if not answer:
        client.refresh((a.LIFETIME, 0))
    return answer


def test_how_often_a_user_may_allocate_is_bounded() -> None:
    world = World(ServerConfig(RealmConfig(REALM), allocation_rate_per_user=2))
    client, other = world.client(), world.client("bob")
    assert [cycle(client) for _ in range(30)] == [0] * 20 + [486] * 10
    assert cycle(other) == 0
    world.pass_time(3)
    assert [cycle(world.client()) for _ in range(10)] == [0] * 6 + [486] * 4
    world.pass_time(3600)
    assert [cycle(client) for _ in range(30)] == [0] * 20 + [486] * 10


@pytest.mark.parametrize("own", [None, 40])
def test_whoever_may_hold_many_may_make_as_many_at_once(own: int | None) -> None:
    """All clients of an app that gives them one name come back together."""
    most = own or 30
    config = ServerConfig(RealmConfig(REALM, allocations_per_user=30), allocation_rate_per_user=1)
    world = World(config, source=Special(quota=own))
    clients = [world.client() for _ in range(most)]
    assert not any(code(each.allocate()) for each in clients)
    for each in clients:
        each.refresh((a.LIFETIME, 0))
    assert code(world.client().allocate()) == 486
    world.pass_time(1)
    assert [code(world.client().allocate()) for _ in range(2)] == [0, 486]


def test_users_of_one_name_in_two_realms_have_a_rate_each() -> None:
    one, two = (RealmConfig(name, allocations_per_user=0) for name in (REALM, "two"))
    config = ServerConfig(one, realms={"two": two}, allocation_rate_per_user=0.1)
    world = World(config)
    assert [cycle(world.client(realm=realm)) for realm in (REALM, "two", REALM, "two")] == [0, 0, 486, 486]


def test_the_rate_follows_a_reload_and_zero_is_no_limit() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=0), allocation_rate_per_user=0.1))
    client = world.client()
    assert [cycle(client) for _ in range(2)] == [0, 486]
    world.server.reconfigure(ServerConfig(RealmConfig(REALM), allocation_rate_per_user=0), world.now)
    assert not any(cycle(client) for _ in range(2_000))


def test_a_request_that_is_refused_spends_nothing_of_the_rate() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=1), allocation_rate_per_user=0.2))
    client = world.client()
    client.allocate()
    assert [code(world.client().allocate()) for _ in range(5)] == [486] * 5
    client.refresh((a.LIFETIME, 0))
    assert code(client.allocate()) == 0


def test_the_default_rate_lets_hundreds_come_back_at_once() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=0)))
    assert not any(code(world.client().allocate()) for _ in range(999))
