"""RFC 6062 in the rules: Allocate for TCP, Connect, ConnectionAttempt, ConnectionBind, and how connections end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.turn.world import (
    OTHER_PEER,
    PEER,
    PEER_V6,
    REALM,
    TCP_RELAY,
    UDP_RELAY,
    Client,
    Pair,
    World,
    code,
    names,
)
from turnsvr.own import OwnHosts
from turnsvr.plane import ConnectPeer, OpenRelay
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationStarted,
    DisconnectPeer,
    EndReason,
    JoinPeer,
    PeerRefused,
    Permit,
    Send,
)
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.policy import PeerPolicy, RangeSet, network_range

RELAY = "192.0.2.100"
"""Where the model plane relays."""


def world(policy: PeerPolicy | None = None, **settings: Any) -> World:
    return World(ServerConfig(RealmConfig(REALM, policy or PeerPolicy()), tcp=True, **settings))


def control(there: World, username: str = "alice", transport: Transport = Transport.TCP) -> Client:
    """A client with an allocation for TCP."""
    client = there.client(username, transport=transport)
    assert code(client.allocate_tcp()) == 0
    return client


def connection_of(there: World, client: Client, peer: Address = PEER) -> int:
    """The number of a connection that the client's Connect has made."""
    assert client.connect(peer) is None
    number = there.plane.connects[-1].connection
    there.connected(number)
    (answer,) = map(client.check, client.mailbox())
    assert code(answer) == 0
    assert answer.get(a.CONNECTION_ID) == number
    return number


def allocation_of(there: World, client: Client) -> int:
    number = there.server.allocation_of(client.five_tuple)
    assert number is not None
    return number


# Allocate (section 5.1)


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
def test_an_allocation_for_tcp_listens_for_peers_and_is_told_of_as_one(transport: Transport) -> None:
    there = world()
    client = there.client(transport=transport)
    answer = client.allocate_tcp()
    assert code(answer) == 0
    assert "RESERVATION-TOKEN" not in names(answer)
    (opened,) = there.of(OpenRelay)
    assert opened.tcp
    (started,) = there.of(AllocationStarted)
    assert started.tcp


def test_a_udp_client_gets_400_for_tcp() -> None:
    there = world()
    assert code(there.client().allocate_tcp()) == 400
    assert not there.of(OpenRelay)


@pytest.mark.parametrize(
    "pair",
    [
        (a.DONT_FRAGMENT, True),
        (a.EVEN_PORT, a.EvenPort(False)),
        (a.EVEN_PORT, a.EvenPort(True)),
        (a.RESERVATION_TOKEN, bytes(8)),
    ],
    ids=lambda pair: pair[0].name,
)
def test_what_is_for_udp_alone_is_400(pair: Pair) -> None:
    there = world()
    assert code(there.client(transport=Transport.TCP).allocate_tcp(pair)) == 400
    assert not there.of(OpenRelay)


@pytest.mark.parametrize("transport", list(Transport))
def test_without_the_setting_tcp_is_a_transport_like_any_other_that_is_not_served(transport: Transport) -> None:
    there = World()
    assert code(there.client(transport=transport).allocate_tcp()) == 442


def test_other_protocols_stay_442() -> None:
    client = world().client(transport=Transport.TCP)
    assert code(client.request(Method.ALLOCATE, (a.REQUESTED_TRANSPORT, 132))) == 442


def test_a_stream_client_may_still_relay_datagrams() -> None:
    there = world()
    client = there.client(transport=Transport.TCP)
    assert code(client.allocate((a.DONT_FRAGMENT, True))) == 0
    (opened,) = there.of(OpenRelay)
    assert not opened.tcp


def test_a_family_may_be_asked_for_and_both() -> None:
    there = world()
    one = there.client(transport=Transport.TCP)
    assert code(one.allocate_tcp((a.REQUESTED_ADDRESS_FAMILY, Family.IPV6))) == 0
    assert code(one.connect(PEER)) == 443
    assert one.connect(PEER_V6) is None
    both = there.client(transport=Transport.TCP)
    assert code(both.allocate_tcp((a.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6))) == 0
    assert both.connect(PEER_V6) is None
    assert both.connect(PEER) is None
    # the refresh of one family ends the connections of that one
    answers = both.deliver(
        both.sign(both.message(Method.REFRESH, (a.LIFETIME, 0), (a.REQUESTED_ADDRESS_FAMILY, Family.IPV6)))
    )
    assert [code(both.check(answer)) for answer in answers] == [447, 0]
    assert [there.plane.connects[-1].connection] == [
        number for number, each in there.plane.connections.items() if each.session == allocation_of(there, both)
    ]


# Connect (section 5.2)


def test_a_connect_is_answered_when_the_connection_is_there() -> None:
    there = world()
    client = control(there)
    assert client.connect(PEER) is None
    (command,) = there.of(ConnectPeer)
    assert (command.peer, command.inside, command.allocation) == (PEER, False, allocation_of(there, client))
    there.connected(command.connection)
    (answer,) = map(client.check, client.mailbox())
    assert code(answer) == 0
    assert names(answer) == ["CONNECTION-ID", "MESSAGE-INTEGRITY"]
    assert 0 <= command.connection < 2**32


def test_a_connect_needs_no_permission_and_installs_none() -> None:
    there = world()
    client = control(there)
    connection_of(there, client)
    assert not there.of(Permit)
    assert there.arrive(allocation_of(there, client), OTHER_PEER._replace(host=PEER.host)) is None


def test_a_connect_that_fails_is_447() -> None:
    there = world()
    client = control(there)
    client.connect(PEER)
    there.connect_fails(there.plane.connects[-1].connection)
    (answer,) = map(client.check, client.mailbox())
    assert code(answer) == 447
    assert there.server.peer_connections() == 0
    assert client.connect(PEER) is None  # and may be tried again


def test_a_connect_that_takes_30_seconds_is_447_and_given_up() -> None:
    there = world()
    client = control(there)
    client.connect(PEER)
    there.pass_time(29.9)
    assert not client.mailbox()
    there.pass_time(0.2)
    (answer,) = map(client.check, client.mailbox())
    assert code(answer) == 447
    assert [each.connection for each in there.of(DisconnectPeer)] == [there.plane.connects[-1].connection]


def test_a_connection_that_comes_after_its_time_is_closed() -> None:
    there = world()
    client = control(there)
    client.connect(PEER)
    number = there.plane.connects[-1].connection
    there.pass_time(31)
    client.mailbox()
    there.clear()
    there.server.peer_connected(number, there.now)
    there.carry_out()
    assert there.commands == [DisconnectPeer(number)]
    there.server.peer_failed(number, there.now)
    there.carry_out()
    assert not client.mailbox()


def test_a_second_connect_to_the_same_peer_is_446_in_every_stage() -> None:
    there = world()
    client = control(there)
    assert client.connect(PEER) is None
    assert code(client.connect(PEER)) == 446
    number = there.plane.connects[-1].connection
    there.connected(number)
    client.mailbox()
    assert code(client.connect(PEER)) == 446
    assert code(there.client(transport=Transport.TCP).bind_connection(number)) == 0
    assert code(client.connect(PEER)) == 446
    assert client.connect(PEER._replace(port=PEER.port + 1)) is None
    assert control(there).connect(PEER) is None  # another allocation is another matter


def test_a_peer_that_has_connected_itself_is_446() -> None:
    there = world()
    client = control(there)
    client.permit(PEER)
    assert there.arrive(allocation_of(there, client), PEER) is not None
    client.mailbox()
    assert code(client.connect(PEER)) == 446


def test_a_connect_without_an_allocation_for_tcp_is_437() -> None:
    there = world()
    client = there.client(transport=Transport.TCP)
    assert code(client.connect(PEER)) == 437
    assert code(client.allocate()) == 0
    assert code(client.connect(PEER)) == 437
    udp = there.client()
    assert code(udp.connect(PEER)) == 437


def test_a_connect_of_another_user_is_441() -> None:
    there = world()
    client = control(there)
    other = there.client("bob", transport=Transport.TCP)
    other.five_tuple = client.five_tuple
    assert code(other.connect(PEER)) == 441


def test_a_connect_without_a_peer_or_to_port_0_is_400() -> None:
    client = control(world())
    assert code(client.request(Method.CONNECT)) == 400
    assert code(client.connect(PEER._replace(port=0))) == 400


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "192.168.1.1", "100.64.0.1"],
)
def test_a_refused_peer_is_403_in_every_spelling(host: str) -> None:
    there = world()
    client = there.client(transport=Transport.TCP)
    assert code(client.allocate_tcp((a.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6))) == 0
    packed = Address(host, 0).packed
    spellings = [
        host,
        Address(f"::ffff:{host}", 0).host,
        f"64:ff9b::{packed[0]:02x}{packed[1]:02x}:{packed[2]:02x}{packed[3]:02x}",
        f"2002:{packed[0]:02x}{packed[1]:02x}:{packed[2]:02x}{packed[3]:02x}::1",
    ]
    for spelling in spellings:
        there.clear()
        assert code(client.connect(Address(spelling, 80))) == 403, spelling
        (refused,) = there.of(PeerRefused)
        assert refused.peer.port == 80
    assert not there.of(ConnectPeer)


def test_an_own_address_is_reached_at_named_ports_and_at_relayed_addresses_alone() -> None:
    own = OwnHosts(frozenset({RELAY}), {})
    policy = PeerPolicy(own=own, relays=frozenset({RELAY}), relay_ports=((49152, 65535),))
    there = world(policy)
    client = control(there)
    assert code(client.connect(Address(RELAY, 22))) == 403
    assert client.connect(Address(RELAY, 50000)) is None
    assert there.plane.connects[-1].inside
    there.clear()
    there.connect_fails(there.plane.connects[-1].connection, forbidden=True)
    assert code(client.check(client.mailbox()[0])) == 403
    assert there.of(PeerRefused)


# ConnectionAttempt (section 5.3)


def test_a_permitted_peer_that_connects_is_told_of() -> None:
    there = world()
    client = control(there)
    client.permit(PEER)
    number = there.arrive(allocation_of(there, client), PEER._replace(port=7))
    (data,) = client.mailbox()
    indication = Message.parse(data)
    assert (indication.method, indication.message_class) == (Method.CONNECTION_ATTEMPT, Class.INDICATION)
    assert indication.get(a.XOR_PEER_ADDRESS) == PEER._replace(port=7)
    assert indication.get(a.CONNECTION_ID) == number


def test_a_peer_without_a_live_permission_is_closed_at_once() -> None:
    there = world()
    client = control(there)
    number = allocation_of(there, client)
    assert there.arrive(number, PEER) is None
    client.permit(PEER)
    assert there.arrive(number, OTHER_PEER) is None
    there.pass_time(301)
    assert there.arrive(number, PEER) is None
    assert there.arrive(number + 1, PEER) is None
    assert not client.mailbox()
    assert there.server.peer_connections() == 0


def test_a_peer_of_an_own_address_may_come_from_a_relayed_address_alone() -> None:
    own = OwnHosts(frozenset({RELAY}), {})
    there = world(PeerPolicy(own=own, relays=frozenset({RELAY}), relay_ports=((49152, 65535),)))
    client = control(there)
    assert code(client.permit(Address(RELAY, 0))) == 0
    assert there.arrive(allocation_of(there, client), Address(RELAY, 50000)) is None
    assert there.arrive(allocation_of(there, client), Address(RELAY, 50000), inside=True) is not None


def test_an_attempt_that_is_not_bound_in_30_seconds_is_closed() -> None:
    there = world()
    client = control(there)
    client.permit(PEER)
    number = there.arrive(allocation_of(there, client), PEER)
    there.pass_time(29.9)
    assert not there.of(DisconnectPeer)
    there.pass_time(0.2)
    assert there.of(DisconnectPeer) == [DisconnectPeer(number or 0)]
    assert code(there.client(transport=Transport.TCP).bind_connection(number or 0)) == 400


def test_a_peer_that_comes_again_from_the_same_port_replaces_the_former() -> None:
    there = world()
    client = control(there)
    client.permit(PEER)
    first = there.arrive(allocation_of(there, client), PEER)
    second = there.arrive(allocation_of(there, client), PEER)
    assert second not in (None, first)
    assert there.of(DisconnectPeer) == [DisconnectPeer(first or 0)]


# ConnectionBind (section 5.4)


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
def test_a_bound_connection_is_joined_after_the_answer(transport: Transport) -> None:
    there = world()
    number = connection_of(there, control(there))
    data = there.client(transport=transport)
    data.challenge()
    there.clear()
    assert code(data.bind_connection(number)) == 0
    kinds = [type(command) for command in there.commands if isinstance(command, (Send, JoinPeer))]
    assert kinds == [Send, JoinPeer]
    assert there.plane.connections[number].client == data.five_tuple
    assert there.server.serves(data.five_tuple)
    there.pass_time(500)
    assert number in there.plane.connections


def test_the_nonce_of_the_control_connection_serves_for_the_bind() -> None:
    there = world()
    client = control(there)
    number = connection_of(there, client)
    data = there.client(transport=Transport.TCP)
    data.nonce = client.nonce
    answer = data.transact(data.sign(data.message(Method.CONNECTION_BIND, (a.CONNECTION_ID, number))))
    assert code(answer) == 0
    # and for no other connection's, nor for another method
    stranger = there.client(transport=Transport.TCP)
    stranger.nonce = client.nonce
    for method, pair in ((Method.CONNECTION_BIND, (a.CONNECTION_ID, number ^ 1)), (Method.ALLOCATE, UDP_RELAY)):
        assert code(stranger.transact(stranger.sign(stranger.message(method, pair)))) == 438


def test_unknown_missing_and_bound_connections_are_400() -> None:
    there = world()
    client = control(there)
    number = connection_of(there, client)
    data = there.client(transport=Transport.TCP)
    assert code(data.bind_connection(number ^ 1)) == 400
    assert code(data.request(Method.CONNECTION_BIND)) == 400
    assert code(data.bind_connection(number)) == 0
    assert code(there.client(transport=Transport.TCP).bind_connection(number)) == 400
    client.connect(OTHER_PEER)
    connecting = there.plane.connects[-1].connection
    assert code(there.client(transport=Transport.TCP).bind_connection(connecting)) == 400


def test_a_udp_client_and_one_with_an_allocation_cannot_bind() -> None:
    there = world()
    client = control(there)
    number = connection_of(there, client)
    assert code(there.client().bind_connection(number)) == 400
    assert code(client.bind_connection(number)) == 400
    assert code(there.client(transport=Transport.TCP).bind_connection(number)) == 0


def test_another_users_connection_is_441_and_stays() -> None:
    there = world()
    number = connection_of(there, control(there))
    assert code(there.client("bob", transport=Transport.TCP).bind_connection(number)) == 441
    wrong = there.client("alice", "wrong", transport=Transport.TCP)
    assert code(wrong.transact(wrong.sign(wrong.message(Method.CONNECTION_BIND, (a.CONNECTION_ID, number))))) == 401
    assert code(there.client(transport=Transport.TCP).bind_connection(number)) == 0


def test_a_bind_is_proven_by_the_allocations_own_key_though_the_user_is_gone() -> None:
    there = world()
    number = connection_of(there, control(there))
    there.hold_credentials = True
    assert code(there.client(transport=Transport.TCP).bind_connection(number)) == 0
    assert not there.lookups


# Ends


def bound(there: World, client: Client, peer: Address = PEER) -> tuple[int, Client]:
    number = connection_of(there, client, peer)
    data = there.client(transport=Transport.TCP)
    assert code(data.bind_connection(number)) == 0
    return number, data


ENDS: dict[str, Callable[[World, Client], Any]] = {
    "refresh to zero": lambda there, client: there.receive(
        client.sign(client.message(Method.REFRESH, (a.LIFETIME, 0))), client.five_tuple
    ),
    "expiry": lambda there, client: there.pass_time(601),
    "disconnection": lambda there, client: client.disconnect(),
    "the operator": lambda there, client: there.server.end(allocation_of(there, client), EndReason.REVOKED, there.now),
    "shutdown": lambda there, client: there.server.shutdown(there.now),
}


@pytest.mark.parametrize("how", ENDS)
def test_an_allocation_takes_its_connections_along_in_every_stage(how: str) -> None:
    there = world()
    client = control(there)
    _, data = bound(there, client)
    if how != "expiry":
        connection_of(there, client, OTHER_PEER)
        client.connect(OTHER_PEER._replace(port=1))
    client.mailbox()
    there.clear()
    ENDS[how](there, client)
    there.carry_out()
    assert not there.plane.connections
    assert there.server.peer_connections() == 0
    assert not there.server.serves(data.five_tuple)
    (ended,) = there.of(AllocationEnded)
    ends = [at for at, command in enumerate(there.commands) if isinstance(command, DisconnectPeer)]
    assert max(ends) < there.commands.index(ended)
    waiting = [answer for answer in map(client.check, client.mailbox()) if code(answer) == 447]
    assert len(waiting) == (how in ("refresh to zero", "the operator", "shutdown"))
    assert there.server.next_timeout() is None


def test_the_end_of_a_clients_connection_ends_the_peers_alone() -> None:
    there = world()
    client = control(there)
    number, data = bound(there, client)
    other, _ = bound(there, client, OTHER_PEER)
    there.clear()
    data.disconnect()
    assert there.of(DisconnectPeer) == [DisconnectPeer(number)]
    assert set(there.plane.connections) == {other}
    assert client.connect(PEER) is None


def test_peers_that_are_refused_after_a_reload_are_disconnected() -> None:
    there = world()
    client = control(there)
    number, _ = bound(there, client)
    other, _ = bound(there, client, OTHER_PEER)
    client.connect(PEER._replace(port=1))
    deny = PeerPolicy(deny=RangeSet([network_range("8.0.0.0/8")]))
    config = ServerConfig(RealmConfig(REALM, deny), tcp=True)
    there.server.reconfigure(config, there.now)
    there.carry_out()
    assert set(there.plane.connections) == {other}
    assert number not in there.plane.connections
    assert [code(client.check(data)) for data in client.mailbox()] == [447]
    there.server.reconfigure(replace(config, tcp=False), there.now)
    there.carry_out()
    assert set(there.plane.connections) == {other}  # what is there lives on
    assert code(there.client(transport=Transport.TCP).request(Method.ALLOCATE, TCP_RELAY)) == 442


def test_a_service_of_this_host_that_is_named_no_more_is_left_but_a_relayed_address_is_not() -> None:
    """Either has a port at which relayed addresses are."""
    host = "192.0.2.9"
    own, relays = OwnHosts([host]), frozenset([host])

    def policy(*ports: tuple[int, int]) -> PeerPolicy:
        named = {ip_address(host): ports} if ports else {}
        return PeerPolicy(named=named, own=own, relays=relays, relay_ports=((49152, 65535),))

    there = world(policy((50000, 50000)))
    client = control(there)
    service, _ = bound(there, client, Address(host, 50000))
    relayed, _ = bound(there, client, Address(host, 50001))
    client.permit(Address(host, 0))
    came = there.arrive(allocation_of(there, client), Address(host, 50002), inside=True)
    assert came is not None
    there.server.reconfigure(ServerConfig(RealmConfig(REALM, policy()), tcp=True), there.now)
    there.carry_out()
    assert set(there.plane.connections) == {relayed, came}
    assert service not in there.plane.connections


# What has no place on an allocation for TCP


def test_there_are_no_channels_and_no_indications() -> None:
    there = world()
    client = control(there)
    client.permit(PEER)
    assert not there.of(Permit)
    assert code(client.bind(0x4000, PEER)) == 400
    assert client.send(PEER, b"data") == []
    assert client.channel_data(0x4000, b"data") == []


def test_late_requests_of_a_connection_that_is_gone_do_nothing() -> None:
    there = world()
    number = connection_of(there, control(there, "bob"))
    data = there.client("bob", transport=Transport.TCP)
    data.challenge()
    there.server.disconnected(FiveTuple(Transport.TCP, data.five_tuple.client, data.five_tuple.server, 9), there.now)
    there.carry_out()
    assert code(data.bind_connection(number)) == 0
