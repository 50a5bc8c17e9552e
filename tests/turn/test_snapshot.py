"""What the rules write out and read back: nothing is lost, no deadline is lengthened, and nothing strange is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.turn.world import PEER, REALM, Style, World, code
from turnsvr.limits import AnswerLimiter
from turnsvr.ranges import EVERY_PORT, RangeSet
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Family
from turnsvr.turn.commands import AllocationEnded, EndReason
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.moving import NUMBERS_APART, Adopted
from turnsvr.turn.policy import PeerPolicy
from turnsvr.turn.server import Server
from turnsvr.turn.snapshot import Unreadable

CONFIG = ServerConfig(RealmConfig(REALM))
CHANNEL = 0x4001


def crossed(value: Any) -> Any:
    """As it comes out of JSON."""
    return json.loads(json.dumps(value))


def succeed(world: World, config: ServerConfig = CONFIG) -> list[Any]:
    """Have another server serve this world, which has read all of the one before; what became of each allocation."""
    before = world.server
    world.server = Server(config, random=world.random.randbytes, limiter=AnswerLimiter(0))
    world.server.read(crossed(before.write(world.now)))
    return [world.server.adopt(crossed(before.write_allocation(each))) for each in before.allocations()]


@pytest.mark.parametrize("style", Style)
def test_clients_go_on_with_their_nonce_and_their_key(style: Style) -> None:
    world = World()
    client = world.client(style=style)
    client.allocate()
    client.bind(CHANNEL, PEER)
    nonce = client.nonce
    adopted = succeed(world)
    assert [each.relay.allocation for each in adopted] == [1]
    world.source = World().source  # nobody is looked up: the key has come along
    assert code(client.refresh()) == 0
    assert client.nonce == nonce
    assert [each.data for each in client.channel_data(CHANNEL, b"data")] == [b"data"]
    assert code(client.bind(CHANNEL + 1, PEER)) == 400  # the peer has a channel


def test_no_deadline_is_lengthened() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    client.permit(PEER._replace(host="1.1.1.1"))
    [before] = world.server.allocations()
    world.pass_time(100.0)
    succeed(world)
    [after] = world.server.allocations()
    assert after.expires == before.expires
    assert after.permissions == before.permissions
    assert {number: each.deadline for number, each in after.channels.items()} == {
        number: each.deadline for number, each in before.channels.items()
    }
    world.clear()
    world.pass_time(199.0)
    assert set(next(world.server.allocations()).permissions) == {PEER.host, "1.1.1.1"}
    world.pass_time(2.0)
    assert set(next(world.server.allocations()).permissions) == {PEER.host}
    world.pass_time(300.0)
    assert [each.reason for each in world.events if isinstance(each, AllocationEnded)] == [EndReason.EXPIRED]


def test_a_retransmission_gets_the_answer_of_before() -> None:
    world = World()
    client = world.client()
    client.challenge()
    asked = client.sign(client.message(3, (a.REQUESTED_TRANSPORT, 17)))
    [answer] = client.deliver(asked)
    over = world.client()
    over.allocate()
    end = over.sign(over.message(4, (a.LIFETIME, 0)))
    [ended] = over.deliver(end)
    succeed(world)
    assert client.deliver(asked) == [answer]
    assert over.deliver(end) == [ended]


def test_reserved_ports_and_their_quota_move() -> None:
    world = World()
    client = world.client()
    token = client.allocate((a.EVEN_PORT, a.EvenPort(reserve=True))).get(a.RESERVATION_TOKEN)
    assert token is not None
    succeed(world)
    other = world.client()
    assert code(other.allocate((a.RESERVATION_TOKEN, token))) == 0
    world.pass_time(31.0)


def test_quotas_count_what_stays_elsewhere() -> None:
    config = ServerConfig(RealmConfig(REALM, allocations_per_user=2))
    world = World(config)
    one, two, three = (world.client() for _ in range(3))
    one.allocate()
    two.allocate()
    [stays, moves] = world.server.allocations()
    before = world.server
    world.server = Server(config, random=world.random.randbytes, limiter=AnswerLimiter(0))
    world.server.read(crossed(before.write(world.now)))
    world.server.count_elsewhere(stays.number, stays.realm, stays.key.quota_user)
    world.server.adopt(crossed(before.write_allocation(moves)))
    before.forget([moves.number], counted=True)
    assert code(three.allocate()) == 486
    world.server.discount_elsewhere(stays.number)
    world.server.discount_elsewhere(stays.number)
    assert code(three.allocate()) == 0
    assert max(each.number for each in world.server.allocations()) > NUMBERS_APART
    world.server = before
    assert code(world.client().allocate()) == 486  # whoever stays is counted with those that have moved


def test_the_bound_of_the_server_counts_what_stays_elsewhere() -> None:
    world = World(replace(CONFIG, allocations=1))
    world.server.count_elsewhere(7, REALM, "bob")
    assert code(world.client().allocate()) == 508


def test_an_allocation_of_a_realm_that_is_gone_is_not_taken() -> None:
    world = World()
    world.client().allocate()
    [refused] = succeed(world, ServerConfig(RealmConfig("other.example")))
    assert not isinstance(refused, Adopted)
    assert refused.realm == REALM
    assert len(world.server) == 0


def test_peers_that_are_refused_from_now_on_are_not_permitted() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    other = PEER._replace(host="1.1.1.1")
    client.permit(other)
    policy = PeerPolicy(deny=RangeSet([(ip_address(PEER.host), ip_address(PEER.host))]))
    [adopted] = succeed(world, ServerConfig(RealmConfig(REALM, policy=policy)))
    assert [(each.host, each.ports) for each in adopted.permissions] == [(other.host, EVERY_PORT)]
    assert not client.send(PEER, b"data")
    assert client.send(other, b"data")


def test_answers_are_counted_on() -> None:
    world = World()
    world.client().allocate()
    before = dict(world.server.answers)
    assert before
    succeed(world)
    assert world.server.answers == before


def a_snapshot() -> tuple[dict[str, Any], dict[str, Any]]:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    [allocation] = world.server.allocations()
    assert Family.IPV4 in allocation.relayed
    return crossed(world.server.write(world.now)), crossed(world.server.write_allocation(allocation))


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        found += places(each, (*at, name))
    return found


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    changed = crossed(value)
    inner = changed
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = new
    return changed


STRANGE = [{"strange": []}, -1, "no \ud800 base64!", [[[]]], float("inf"), float("nan"), True]


def test_no_strange_value_is_taken_anywhere_and_no_error_tells_a_secret() -> None:
    rules, allocation = a_snapshot()
    taken, said = 0, []
    for document, read in ((rules, "read"), (allocation, "adopt")):
        for at in places(document):
            for strange in STRANGE:
                server = Server(CONFIG, random=bytes, limiter=AnswerLimiter(0))
                try:
                    getattr(server, read)(put(document, at, strange))
                except Unreadable as error:
                    said.append(str(error))
                else:
                    taken += 1
                    assert not isinstance(strange, dict | list), at
        for missing in list(document):
            with pytest.raises(Unreadable, match=f"{missing} is missing"):
                getattr(Server(CONFIG, random=bytes, limiter=AnswerLimiter(0)), read)(
                    {name: value for name, value in document.items() if name != missing}
                )
        with pytest.raises(Unreadable, match="'news' is not known here"):
            getattr(Server(CONFIG, random=bytes, limiter=AnswerLimiter(0)), read)(document | {"news": 1})
    assert taken  # user names may be anything
    secrets = ("wonderland", allocation["key"]["md5"], rules["secret"])
    assert not any(secret in text for secret in secrets for text in said)


def test_two_of_one_number_or_client_are_not_taken() -> None:
    rules, allocation = a_snapshot()
    server = Server(CONFIG, random=bytes, limiter=AnswerLimiter(0))
    server.read(rules)
    server.adopt(allocation)
    with pytest.raises(Unreadable, match="two allocations"):
        server.adopt(allocation)
    with pytest.raises(Unreadable, match="two allocations"):
        server.adopt(allocation | {"number": 99})
