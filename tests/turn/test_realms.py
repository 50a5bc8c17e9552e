"""Several realms on one server: which one a request belongs to, and that they have nothing of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.credentials.callers import CALLER
from tests.turn.test_allocate import DUAL, PAIR
from tests.turn.world import OTHER_PEER, PEER, REALM, SERVER, UDP_RELAY, USERS, Client, World, code, names, raw
from turnsvr.credentials.api import Caller, Credential, Refusal
from turnsvr.credentials.chain import ByRealm
from turnsvr.credentials.static import StaticUsers
from turnsvr.own import OwnHosts
from turnsvr.plane import OpenRelay
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import Message, Method
from turnsvr.turn import realms
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationStarted,
    AuthenticationFailed,
    EndReason,
    FindCredential,
    PeerRefused,
    Permit,
)
from turnsvr.turn.config import Listener, RealmConfig, ServerConfig
from turnsvr.turn.policy import PeerPolicy, RangeSet, network_range

SHOP = "shop.example"
GAME = "game.example"
SHOP_SERVER = Address("192.0.2.2", 3478)
CONFIG = ServerConfig(
    RealmConfig(REALM),
    realms={SHOP: RealmConfig(SHOP), GAME: RealmConfig(GAME)},
    origins={"https://shop.example": SHOP, "https://game.example": GAME, "https://gone.example": "gone.example"},
    listeners={
        Listener(False, SHOP_SERVER): SHOP,
        Listener(False, Address("0.0.0.0", 3480)): GAME,
        Listener(True, Address("::", 3480)): SHOP,
    },
)


def denying(*texts: str) -> PeerPolicy:
    return PeerPolicy(deny=RangeSet(map(network_range, texts)))


def with_realm(realm: RealmConfig, **others: Any) -> ServerConfig:
    return ServerConfig(RealmConfig(REALM), realms={realm.name: realm}, **others)


def challenge_of(client: Client, message: Message) -> str:
    answer = client.transact(message.encode())
    assert code(answer) == 401
    assert answer is not None
    realm = answer.get(a.REALM)
    assert realm is not None
    return realm


# Which realm


@pytest.mark.parametrize(
    ("named", "origins", "server", "is_stream", "expected"),
    [
        (None, [], SERVER, False, REALM),
        (SHOP, ["https://game.example"], SERVER, False, SHOP),
        (REALM, ["https://game.example"], SHOP_SERVER, False, REALM),
        ("nowhere.example", ["https://game.example"], SHOP_SERVER, False, GAME),
        (None, ["HTTPS://Game.Example:443/"], SHOP_SERVER, False, GAME),
        (None, ["https://other.example", "https://shop.example"], SERVER, False, SHOP),
        (None, ["https://gone.example"], SERVER, False, REALM),
        (None, ["http://shop.example"], SERVER, False, REALM),
        (None, [], SHOP_SERVER, False, SHOP),
        (None, [], SHOP_SERVER, True, REALM),
        (None, [], Address("192.0.2.77", 3480), False, GAME),
        (None, [], Address("2001:db8::1", 3480), False, REALM),
        (None, [], Address("2001:db8::1", 3480), True, SHOP),
        (None, [], Address("192.0.2.77", 3481), False, REALM),
    ],
)
def test_realm_then_origin_then_listener_then_the_default(
    named: str | None, origins: list[str], server: Address, is_stream: bool, expected: str
) -> None:
    for transport in (Transport.TCP, Transport.TLS) if is_stream else (Transport.UDP,):
        five_tuple = FiveTuple(transport, Address("198.51.100.7", 1), server)
        assert realms.choose(CONFIG, named, origins, five_tuple).name == expected


def test_a_challenge_names_the_realm_of_the_origin() -> None:
    client = World(CONFIG).client()
    assert challenge_of(client, client.message(Method.ALLOCATE, UDP_RELAY)) == REALM
    assert challenge_of(client, client.message(Method.ALLOCATE, (a.ORIGIN, "https://shop.example/"))) == SHOP


def test_a_challenge_names_the_realm_of_the_listener() -> None:
    client = World(CONFIG).client(server=SHOP_SERVER)
    assert challenge_of(client, client.message(Method.ALLOCATE, UDP_RELAY)) == SHOP


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        (SERVER, REALM),
        (SHOP_SERVER, SHOP),
        (Address("0.0.0.0", 3480), GAME),
        (Address("::", 3480), REALM),
        (Address("0.0.0.0", 3478), None),
        (Address("::", 3478), REALM),
        (Address("192.0.2.77", 3481), REALM),
    ],
)
def test_the_realm_of_whoever_comes_to_a_listener(listener: Address, expected: str | None) -> None:
    found = realms.of_listener(CONFIG, listener)
    assert (None if found is None else found.name) == expected


@pytest.mark.parametrize("attribute", [a.ORIGIN, a.REALM])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"a" * 764])
def test_what_cannot_be_read_chooses_nothing_and_is_challenged(attribute: a.Attribute[str], value: bytes) -> None:
    client = World(CONFIG).client(server=SHOP_SERVER)
    message = raw(client.message(Method.ALLOCATE), attribute.number, value)
    assert challenge_of(client, message) == SHOP


def test_an_unreadable_origin_does_no_harm_to_who_proves_who_he_is() -> None:
    client = World(CONFIG).client()
    client.challenge()
    message = raw(client.message(Method.ALLOCATE, UDP_RELAY), a.ORIGIN.number, b"\xff")
    assert code(client.transact(client.sign(message))) == 0


def test_an_unknown_realm_is_challenged_without_a_look_up() -> None:
    world = World(CONFIG)
    client = world.client(realm="nowhere.example", server=SHOP_SERVER)
    answer = client.request(Method.ALLOCATE, UDP_RELAY)
    assert (code(answer), answer.get(a.REALM)) == (401, SHOP)
    assert names(answer) == ["ERROR-CODE", "REALM", "NONCE", "PASSWORD-ALGORITHMS"]
    assert not world.of(FindCredential)
    assert not world.events


@pytest.mark.parametrize("realm", [REALM, SHOP, GAME])
@pytest.mark.parametrize("hashed", [False, True])
def test_users_are_looked_up_in_the_realm_that_they_name(realm: str, hashed: bool) -> None:
    world = World(replace(CONFIG, anonymity=True))
    client = world.client(realm=realm, hashed=hashed)
    assert code(client.allocate()) == 0
    assert [command.realm for command in world.of(FindCredential)] == [realm]
    assert [each.realm for each in world.server.allocations()] == [realm]


def test_users_of_one_realm_are_unknown_in_another() -> None:
    world = World(CONFIG, source=ByRealm({REALM: StaticUsers({"alice": "a"}), SHOP: StaticUsers({"bob": "b"})}))
    assert code(world.client("alice", "a").allocate()) == 0
    assert code(world.client("bob", "b", realm=SHOP).allocate()) == 0
    stranger = world.client("alice", "a", realm=SHOP)
    assert code(stranger.allocate()) == 401
    assert world.events[-1] == AuthenticationFailed(stranger.five_tuple, "alice", "unknown user", SHOP)


def test_a_wrong_password_is_challenged_in_the_realm_that_was_named() -> None:
    client = World(CONFIG).client("alice", "guess", realm=SHOP)
    assert client.allocate().get(a.REALM) == SHOP


# Allocations of another realm


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_a_namesake_of_another_realm_has_the_wrong_credentials(method: Method) -> None:
    world = World(CONFIG)
    owner = world.client()
    assert code(owner.allocate()) == 0
    namesake = world.client(realm=SHOP, address=owner.five_tuple.client)
    answer = namesake.request(method, (a.LIFETIME, 0), (a.XOR_PEER_ADDRESS, PEER), (a.CHANNEL_NUMBER, 0x4000))
    assert code(answer) == 441
    assert len(world.server) == 1
    assert not world.of(Permit)


def test_a_namesake_of_another_realm_gets_no_answer_of_the_owners() -> None:
    world = World(CONFIG)
    owner = world.client()
    message = owner.message(Method.ALLOCATE, UDP_RELAY)
    owner.challenge()
    assert code(owner.transact(owner.sign(message))) == 0
    namesake = world.client(realm=SHOP, address=owner.five_tuple.client)
    again = Message(Method.ALLOCATE, message.message_class, message.transaction_id).add(*UDP_RELAY)
    assert code(namesake.transact(namesake.sign(again))) == 437


@pytest.mark.parametrize("named", [SHOP, "nowhere.example"])
def test_the_owners_key_serves_no_other_realm(named: str) -> None:
    world = World(CONFIG)
    client = world.client()
    client.allocate()
    message = client.message(Method.REFRESH, (a.USERNAME, "alice"), (a.REALM, named), (a.NONCE, client.challenge()))
    assert code(client.transact(message.encode(key=client.key))) == 401


def test_an_allocation_ends_with_its_realm() -> None:
    """Another realm's peers, the default one's among them, are not for its user."""
    world = World(with_realm(RealmConfig(SHOP, policy=denying(f"{PEER.host}/32"))))
    ours, theirs = world.client(), world.client(realm=SHOP)
    for client in (ours, theirs):
        assert code(client.allocate()) == 0
        client.permit(OTHER_PEER)
    world.pass_time(7)
    world.clear()
    world.server.reconfigure(ServerConfig(RealmConfig(REALM)), world.now)
    world.carry_out()
    (ended,) = world.of(AllocationEnded)
    assert (ended.allocation, ended.realm, ended.reason, ended.duration) == (2, SHOP, EndReason.REVOKED, 7)
    assert not theirs.send(OTHER_PEER, b"x")
    assert code(theirs.permit(PEER)) == 401
    assert code(world.client(realm=SHOP).allocate()) == 401
    assert ours.send(OTHER_PEER, b"x")
    assert code(ours.refresh()) == 0


def test_a_user_who_is_looked_up_when_the_realm_goes_is_refused() -> None:
    world = World(CONFIG)
    client = world.client(realm=SHOP)
    client.challenge()
    world.hold_credentials = True
    client.transact(client.sign(client.message(Method.ALLOCATE, UDP_RELAY)))
    world.server.reconfigure(ServerConfig(RealmConfig(REALM)), world.now)
    world.answer_all()
    (answer,) = world.mail[client.five_tuple]
    assert code(Message.parse(answer)) == 401
    assert not world.opens
    assert len(world.server) == 0


# Limits


def test_the_limit_of_users_is_their_realms() -> None:
    world = World(with_realm(RealmConfig(SHOP, allocations_per_user=1)))
    assert [code(world.client(realm=SHOP).allocate()) for _ in range(2)] == [0, 486]
    assert [code(world.client().allocate()) for _ in range(2)] == [0, 0]
    assert code(world.client("bob", realm=SHOP).allocate()) == 0


def test_namesakes_of_two_realms_count_by_themselves() -> None:
    config = ServerConfig(
        RealmConfig(REALM, allocations_per_user=2), realms={SHOP: RealmConfig(SHOP, allocations_per_user=2)}
    )
    world = World(config)
    assert [code(world.client(realm=realm).allocate()) for realm in (REALM, SHOP) * 3] == [0, 0, 0, 0, 486, 486]


def test_ports_are_held_by_users_of_a_realm() -> None:
    world = World(with_realm(RealmConfig(SHOP, allocations_per_user=2)))
    held = world.client(realm=SHOP)
    for expected in (0, 0, 486):
        assert code(held.allocate(PAIR)) == expected
        held.refresh((a.LIFETIME, 0))
    assert code(world.client().allocate(PAIR)) == 0
    assert code(world.client(realm=SHOP).allocate()) == 0


def test_a_full_realm_is_486_and_a_full_server_508() -> None:
    world = World(with_realm(RealmConfig(SHOP, allocations=2), allocations=3))
    first = world.client(realm=SHOP)
    assert [code(first.allocate()), code(world.client("bob", realm=SHOP).allocate())] == [0, 0]
    assert code(world.client(realm=SHOP).allocate()) == 486
    assert code(world.client().allocate()) == 0
    assert code(world.client().allocate()) == 508
    first.refresh((a.LIFETIME, 0))
    assert code(world.client(realm=SHOP).allocate()) == 0


class Special:
    """Users whose credentials say more than a name."""

    anonymity = False
    md5_alone = False

    def __init__(self, **more: Any) -> None:
        self._users = StaticUsers(USERS)
        self._more = more

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return tuple(replace(each, **self._more) for each in self._users.find_now(username, realm, wall_time, CALLER))

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return self.find_now(username, realm, wall_time, caller)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN


@pytest.mark.parametrize(
    ("quota", "limit", "expected"),
    [
        (3, 1, [0, 0, 0, 486]),
        (1, 3, [0, 486]),
        (1, 0, [0, 486]),
        (0, 3, [486]),
        (None, 2, [0, 0, 486]),
    ],
)
def test_a_quota_of_the_credential_comes_before_the_limit(quota: int | None, limit: int, expected: list[int]) -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=limit)), source=Special(quota=quota))
    assert [code(world.client().allocate()) for _ in expected] == expected


def test_the_bandwidth_is_the_realms() -> None:
    world = World(with_realm(RealmConfig(SHOP, bandwidth=125_000.0)))
    world.client().allocate()
    world.client(realm=SHOP).allocate()
    assert [command.bandwidth for command in world.of(OpenRelay)] == [None, 125_000.0]


# Peers


def test_each_realm_refuses_its_own_peers() -> None:
    world = World(with_realm(RealmConfig(SHOP, policy=denying(f"{PEER.host}/32"))))
    ours, theirs = world.client(), world.client(realm=SHOP)
    for client in (ours, theirs):
        client.allocate()
    assert code(ours.permit(PEER)) == code(ours.bind(0x4000, PEER)) == 0
    assert ours.send(PEER, b"x")
    assert code(theirs.permit(PEER)) == code(theirs.bind(0x4000, PEER)) == 403
    assert code(theirs.permit(OTHER_PEER)) == 0
    refused = PeerRefused(2, "alice", theirs.five_tuple, PEER, "denied by peers.deny", SHOP)
    assert world.of(PeerRefused) == [refused, refused]
    allocation = next(each for each in world.server.allocations() if each.realm == SHOP)
    allocation.permissions[PEER.host] = world.now + 300
    assert not theirs.send(PEER, b"x")


def test_a_peer_that_one_realm_refuses_from_now_on_is_cut_off_there_alone() -> None:
    world = World(with_realm(RealmConfig(SHOP)))
    ours, theirs = world.client(), world.client(realm=SHOP)
    for client in (ours, theirs):
        client.allocate(DUAL)
        client.permit(PEER, OTHER_PEER)
    world.clear()
    world.server.reconfigure(with_realm(RealmConfig(SHOP, policy=denying(f"{PEER.host}/32"))), world.now)
    world.carry_out()
    assert world.of(Permit) == [Permit(2, PEER.host, 0.0)]
    assert ours.send(PEER, b"x")
    assert theirs.send(OTHER_PEER, b"x")
    assert not theirs.send(PEER, b"x")


def test_own_addresses_are_refused_in_a_realm_that_allows_everything() -> None:
    everything = RangeSet([network_range("0.0.0.0/0")])
    policy = PeerPolicy(allow=everything, own=OwnHosts())
    world = World(with_realm(RealmConfig(SHOP, policy=policy)))
    client = world.client(realm=SHOP)
    client.allocate()
    assert code(client.permit(Address("127.0.0.1", 22))) == 403
    assert code(client.permit(Address("10.0.0.1", 22))) == 0


# What is told


def test_events_name_the_realm_and_what_may_be_shown_of_the_user() -> None:
    world = World(CONFIG, source=Special(label="somebody"))
    client = world.client(realm=SHOP)
    client.allocate()
    client.permit(Address("127.0.0.1", 1))
    (allocation,) = world.server.allocations()
    assert (allocation.username, allocation.shown) == ("alice", "somebody")
    world.server.end(allocation.number, EndReason.REVOKED, world.now)
    world.carry_out()
    told: list[Any] = [each for each in world.events if not isinstance(each, AuthenticationFailed)]
    assert {type(each) for each in told} == {AllocationStarted, PeerRefused, AllocationEnded}
    assert {(each.username, each.realm) for each in told} == {("somebody", SHOP)}


def test_how_long_an_allocate_took_includes_its_look_up_and_its_relay() -> None:
    world = World()
    world.hold_credentials = world.hold_relays = True
    client = world.client()
    client.challenge()
    client.deliver(client.sign(client.message(Method.ALLOCATE, UDP_RELAY)))
    world.now += 0.5
    world.answer_lookup(world.lookups[0])
    world.carry_out()
    world.now += 0.25
    world.answer_all()
    (event,) = world.of(AllocationStarted)
    assert event.took == 0.75
