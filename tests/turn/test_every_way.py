"""Refusals, bounds and expiries of relaying, each for every way in: one row a test, one column a way.

The ways are the four transports, relaying over TCP to peers (RFC 6062), a client that has moved (RFC 8016), and an
access token (RFC 7635). What the rules cannot see stands beside it: of PROXY headers in tests/net/test_proxied.py, of
shared ports in tests/net/test_sharing.py, of DTLS in tests/relay/compiled/test_dtls_handshakes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from tests.turn.test_abuse import INSIDE
from tests.turn.test_mobility import moved, there, ticket_of
from tests.turn.test_third_party import NORTH, Bearer
from tests.turn.world import OTHER_PEER, PEER, PEER_V6, REALM, TCP_RELAY, UDP_RELAY, USERS, Client, Pair, World, code
from turnsvr.credentials.accesstokens import AccessTokens, ByToken
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.message import Message, Method
from turnsvr.turn.commands import AllocationEnded, EndReason, PeerRefused
from turnsvr.turn.config import RealmConfig, Redirect, ServerConfig
from turnsvr.turn.policy import NOTHING, PeerPolicy, RangeSet, network_range

_connections = count(1)
DUAL: Pair = (a.ADDITIONAL_ADDRESS_FAMILY, 2)


@dataclass(frozen=True)
class Way:
    """How a client comes to relay."""

    name: str
    transport: Transport = Transport.UDP
    tcp: bool = False
    moves: bool = False
    token: bool = False

    def world(self, realm: RealmConfig | None = None, **settings: Any) -> World:
        config = ServerConfig(realm or RealmConfig(REALM), tcp=True, mobility=True, **settings)
        if not self.token:
            return World(config)
        return World(replace(config, access_tokens=""), source=ByToken(AccessTokens([NORTH]), StaticUsers(USERS)))

    def client(self, world: World, like: Client | None = None) -> Client:
        """Without an allocation. like: one whose credentials it has."""
        if self.token:
            bearer = Bearer(world)
            if isinstance(like, Bearer):
                bearer.token, bearer.mac_key = like.token, like.mac_key
            return bearer
        client = world.client(transport=self.transport)
        if self.transport.is_stream:
            client.five_tuple = client.five_tuple._replace(connection=next(_connections))
        return client

    def allocate(self, client: Client, *pairs: Pair) -> Message:
        if self.moves:
            pairs = ((a.MOBILITY_TICKET, b""), *pairs)
        if isinstance(client, Bearer):
            pairs = (client.shown(), *pairs)
        return client.request(Method.ALLOCATE, TCP_RELAY if self.tcp else UDP_RELAY, *pairs)

    def allocated(self, world: World, *pairs: Pair, like: Client | None = None) -> Client:
        """With an allocation; one that moves is at its second place."""
        client = self.client(world, like)
        answer = self.allocate(client, *pairs)
        assert code(answer) == 0
        if not self.moves:
            return client
        elsewhere = moved(client, there(Transport.UDP, port=next(_connections) + 20_000))
        assert code(elsewhere.refresh((a.MOBILITY_TICKET, ticket_of(answer)))) == 0
        elsewhere.send(Address("192.0.2.77", 9), b"here")
        return elsewhere

    def naming(self, client: Client, peer: Address) -> list[int]:
        """Error codes of each method that names a peer; a Connect that is made is 0."""
        found = [code(client.permit(peer))]
        if not self.tcp:
            return [*found, code(client.bind(0x4000, peer))]
        answer = client.connect(peer)
        return [*found, 0 if answer is None else code(answer)]

    def reaches(self, client: Client, peer: Address) -> bool:
        """Whether something passes between client and peer."""
        if not self.tcp:
            return bool(client.send(peer, b"data"))
        number = client.world.server.allocation_of(client.five_tuple)
        peer = peer._replace(port=next(_connections))
        arrived = number is not None and client.world.arrive(number, peer) is not None
        assert bool(client.mailbox()) == arrived, "a ConnectionAttempt indication"
        return arrived


WAYS = [
    Way("UDP"),
    Way("TCP", Transport.TCP),
    Way("TLS", Transport.TLS),
    Way("DTLS", Transport.DTLS),
    Way("relaying over TCP", Transport.TCP, tcp=True),
    Way("relaying over TCP, by TLS", Transport.TLS, tcp=True),
    Way("after a move", moves=True),
    Way("by an access token", token=True),
]


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


# Refusals


def test_without_credentials_nothing_is_allocated(way: Way) -> None:
    world = way.world()
    client = way.client(world)
    relay = TCP_RELAY if way.tcp else UDP_RELAY
    assert code(client.transact(client.message(Method.ALLOCATE, relay).encode())) == 401
    assert not world.plane.sessions


def test_wrong_credentials_are_401_for_every_method(way: Way) -> None:
    world = way.world()
    client = way.allocated(world)
    impostor = moved(client, client.five_tuple)
    impostor.password = "wrong"
    for method, pair in (
        (Method.ALLOCATE, TCP_RELAY if way.tcp else UDP_RELAY),
        (Method.REFRESH, (a.LIFETIME, 0)),
        (Method.CREATE_PERMISSION, (a.XOR_PEER_ADDRESS, PEER)),
        (Method.CHANNEL_BIND, (a.XOR_PEER_ADDRESS, PEER)),
        (Method.CONNECT, (a.XOR_PEER_ADDRESS, PEER)),
    ):
        impostor.challenge()
        answer = impostor.transact(impostor.sign(impostor.message(method, pair)))
        assert code(answer) in (401, 441), method
    assert len(world.server) == 1


def test_a_nonce_is_of_one_client_and_ends(way: Way) -> None:
    world = way.world(nonce_lifetime=60.0)
    client = way.allocated(world, (a.LIFETIME, 3600))
    for nonce, seconds in ((way.client(world).challenge(), 0), (client.challenge(), 62)):
        world.pass_time(seconds)
        client.nonce = nonce
        assert code(client.transact(client.sign(client.message(Method.REFRESH)))) == 438


def test_without_an_allocation_everything_is_437(way: Way) -> None:
    client = way.client(way.world())
    expected = 401 if way.token else 437  # where no token has been shown its key is not known
    assert way.naming(client, PEER) == [expected] * 2
    assert code(client.refresh()) == expected


def test_another_users_allocation_is_441(way: Way) -> None:
    world = way.world()
    client = way.allocated(world)
    other = world.client("bob")
    other.five_tuple = client.five_tuple
    assert way.naming(other, PEER) == [441, 441]
    assert code(other.refresh((a.LIFETIME, 0))) == 441
    assert len(world.server) == 1


@pytest.mark.parametrize("host", INSIDE)
def test_a_refused_peer_is_403_in_every_spelling_and_told(way: Way, host: str) -> None:
    world = way.world()
    client = way.allocated(world, DUAL)
    world.clear()
    peer = Address(host, 80)
    assert way.naming(client, peer) == [403, 403]
    assert len(world.of(PeerRefused)) == 2
    assert not way.reaches(client, peer)
    assert not world.plane.connects


def test_a_peer_of_the_other_family_is_443(way: Way) -> None:
    client = way.allocated(way.world())
    assert way.naming(client, PEER_V6) == [443, 443]


def test_an_attribute_that_must_be_understood_is_420(way: Way) -> None:
    client = way.allocated(way.world())
    request = client.message(Method.REFRESH)
    request._attributes.append((0x7001, b""))
    assert code(client.transact(client.sign(request))) == 420


def test_a_server_that_drains_or_sends_on_takes_nobody(way: Way) -> None:
    world = way.world()
    client = way.allocated(world)
    world.server.drain()
    assert code(way.allocate(way.client(world))) == 508
    assert code(client.refresh()) == 0
    sent_on = way.world(redirect=Redirect((Address("203.0.113.77", 3478),), always=True))
    assert code(way.allocate(way.client(sent_on))) == 300


# Bounds


@pytest.mark.parametrize(
    ("realm", "settings", "expected"),
    [
        (RealmConfig(REALM, allocations_per_user=1), {}, 486),
        (RealmConfig(REALM, allocations=1), {}, 486),
        (RealmConfig(REALM), {"allocations": 1}, 508),
        (RealmConfig(REALM, allocations_per_user=0), {"allocation_rate_per_user": 0.1}, 486),
    ],
    ids=["of a user", "of a realm", "of the server", "how often"],
)
def test_allocations_are_bounded(way: Way, realm: RealmConfig, settings: dict[str, Any], expected: int) -> None:
    world = way.world(realm, **settings)
    client = way.allocated(world)
    assert code(way.allocate(way.client(world, client))) == expected
    assert len(world.server) == 1


def test_permissions_are_bounded(way: Way) -> None:
    client = way.allocated(way.world(permissions_per_allocation=1))
    assert code(client.permit(PEER)) == 0
    assert code(client.permit(OTHER_PEER)) == 508
    assert code(client.permit(PEER)) == 0


def test_a_lifetime_is_bounded(way: Way) -> None:
    client = way.allocated(way.world(max_lifetime=700))
    assert client.refresh((a.LIFETIME, 100_000)).get(a.LIFETIME) == 700


# Expiries


def test_a_permission_lasts_300_seconds(way: Way) -> None:
    world = way.world()
    client = way.allocated(world)
    assert not way.reaches(client, PEER)
    client.permit(PEER)
    world.pass_time(299)
    assert way.reaches(client, PEER)
    world.pass_time(2)
    assert not way.reaches(client, PEER)


def test_an_allocation_lasts_600_seconds(way: Way) -> None:
    world = way.world()
    client = way.allocated(world)
    world.pass_time(599)
    assert len(world.server) == 1
    world.pass_time(2)
    (ended,) = world.of(AllocationEnded)
    assert ended.reason is EndReason.EXPIRED
    assert not world.plane.sessions
    assert not way.reaches(client, PEER)


ENDS: dict[str, Callable[[World, Client], object]] = {
    "Refresh with lifetime 0": lambda world, client: client.deliver(
        client.sign(client.message(Method.REFRESH, (a.LIFETIME, 0)))
    ),
    "the operator": lambda world, client: world.server.end(1, EndReason.REVOKED, world.now),
    "a realm that is gone": lambda world, client: world.server.reconfigure(
        ServerConfig(RealmConfig("other.example")), world.now
    ),
    "shutdown": lambda world, client: world.server.shutdown(world.now),
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left_behind_the_end(way: Way, how: str) -> None:
    world = way.world()
    client = way.allocated(world)
    client.permit(PEER)
    if way.tcp:
        assert client.connect(OTHER_PEER) is None
    ENDS[how](world, client)
    world.carry_out()
    client.mailbox()
    assert not world.plane.sessions
    assert not world.plane.connections
    assert not way.reaches(client, PEER)
    assert len(world.of(AllocationEnded)) == 1


def test_a_reload_that_refuses_a_peer_ends_what_there_is(way: Way) -> None:
    world = way.world()
    client = way.allocated(world)
    client.permit(PEER, OTHER_PEER)
    deny = PeerPolicy(NOTHING, RangeSet([network_range("8.0.0.0/8")]))
    config = replace(world.server._state.config, realm=RealmConfig(REALM, deny))
    world.server.reconfigure(config, world.now)
    world.carry_out()
    assert not way.reaches(client, PEER)
    assert way.reaches(client, OTHER_PEER)
    assert way.naming(client, PEER) == [403, 403]


def test_a_family_may_be_ended_alone(way: Way) -> None:
    world = way.world()
    client = way.allocated(world, DUAL)
    client.permit(PEER, PEER_V6)
    assert code(client.refresh((a.LIFETIME, 0), (a.REQUESTED_ADDRESS_FAMILY, Family.IPV6))) == 0
    assert not way.reaches(client, PEER_V6)
    assert way.reaches(client, PEER)
    assert len(world.server) == 1
