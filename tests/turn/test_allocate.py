"""Allocate: every check of RFC 8656 section 7.2, what the answer holds, and what a retransmission gets."""

from __future__ import annotations

import pytest

from tests.turn.world import REALM, UDP_RELAY, Pair, Style, World, code, names, raw
from turnsvr.plane import OpenRelay
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message, Method
from turnsvr.turn.commands import AllocationEnded, AllocationStarted, ReleaseReservation
from turnsvr.turn.config import RealmConfig, Redirect, ServerConfig

V4: Pair = (a.REQUESTED_ADDRESS_FAMILY, 1)
V6: Pair = (a.REQUESTED_ADDRESS_FAMILY, 2)
DUAL: Pair = (a.ADDITIONAL_ADDRESS_FAMILY, 2)
EVEN: Pair = (a.EVEN_PORT, a.EvenPort(False))
PAIR: Pair = (a.EVEN_PORT, a.EvenPort(True))


def relayed(answer: Message) -> list[Address]:
    assert code(answer) == 0
    return list(answer.all(a.XOR_RELAYED_ADDRESS))


def token_of(answer: Message) -> bytes:
    token = answer.get(a.RESERVATION_TOKEN)
    assert token is not None
    return token


def test_the_answer_holds_relayed_address_lifetime_mapped_address_and_software() -> None:
    world = World()
    client = world.client()
    answer = client.allocate()
    assert names(answer) == [
        "XOR-RELAYED-ADDRESS",
        "LIFETIME",
        "XOR-MAPPED-ADDRESS",
        "SOFTWARE",
        "MESSAGE-INTEGRITY",
    ]
    assert relayed(answer) == [Address("192.0.2.100", 49152)]
    assert answer.get(a.LIFETIME) == 600
    assert answer.get(a.XOR_MAPPED_ADDRESS) == client.five_tuple.client
    assert answer.get(a.SOFTWARE) == "turnsvr"


def test_software_can_be_switched_off() -> None:
    world = World(ServerConfig(RealmConfig(REALM), software=None))
    client = world.client()
    assert "SOFTWARE" not in names(client.allocate())
    assert "SOFTWARE" not in names(client.refresh())


def test_the_start_is_told() -> None:
    world = World()
    client = world.client("bob")
    address = relayed(client.allocate())[0]
    assert world.events == [AllocationStarted(1, "bob", client.five_tuple, (address,), 600, REALM, 0.0)]


def test_a_second_allocate_on_the_five_tuple_is_437() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert code(client.allocate()) == 437
    assert len(world.server) == 1


def test_437_comes_before_what_else_is_wrong() -> None:
    client = World().client()
    client.allocate()
    assert code(client.request(Method.ALLOCATE)) == 437


def test_without_requested_transport_is_400() -> None:
    assert code(World().client().request(Method.ALLOCATE)) == 400


def test_a_malformed_requested_transport_is_400() -> None:
    client = World().client()
    message = raw(client.message(Method.ALLOCATE), a.REQUESTED_TRANSPORT.number, b"\x11")
    assert code(client.transact(client.sign(message))) == 400


@pytest.mark.parametrize("protocol", [0, 6, 16, 18, 255])
def test_a_transport_other_than_udp_is_442(protocol: int) -> None:
    assert code(World().client().request(Method.ALLOCATE, (a.REQUESTED_TRANSPORT, protocol))) == 442


def test_dont_fragment_is_understood() -> None:
    assert code(World().client().allocate((a.DONT_FRAGMENT, True))) == 0


@pytest.mark.parametrize(
    ("asked", "granted"), [(None, 600), (0, 600), (1, 600), (600, 600), (1800, 1800), (3600, 3600), (0xFFFFFFFF, 3600)]
)
def test_the_lifetime_lies_between_default_and_maximum(asked: int | None, granted: int) -> None:
    world = World()
    answer = world.client().allocate(*([] if asked is None else [(a.LIFETIME, asked)]))
    assert answer.get(a.LIFETIME) == granted
    world.pass_time(granted - 0.001)
    assert len(world.server) == 1
    world.pass_time(0.001)
    assert len(world.server) == 0
    assert not world.plane.sessions


def test_a_maximum_below_the_default_wins() -> None:
    world = World(ServerConfig(RealmConfig(REALM), max_lifetime=120))
    assert world.client().allocate((a.LIFETIME, 3600)).get(a.LIFETIME) == 120


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("transport", Transport)
def test_every_transport_and_style_of_integrity(style: Style, transport: Transport) -> None:
    client = World().client(style=style, transport=transport)
    answer = client.allocate()
    assert code(answer) == 0
    expected = "MESSAGE-INTEGRITY" if style is Style.PLAIN else "MESSAGE-INTEGRITY-SHA256"
    assert names(answer)[-1] == expected


def test_fingerprint_is_answered_with_fingerprint() -> None:
    client = World().client()
    client.challenge()
    data = client.sign(client.message(Method.ALLOCATE, UDP_RELAY), key=client.key, fingerprint=True)
    answer = client.transact(data)
    assert code(answer) == 0
    assert names(answer)[-2:] == ["MESSAGE-INTEGRITY", "FINGERPRINT"]


def test_an_unknown_required_attribute_is_420_with_the_list() -> None:
    client = World().client()
    message = client.message(Method.ALLOCATE, UDP_RELAY)
    for number in (0x7001, 0x8FFF, 0x002B, 0x7001):
        raw(message, number, b"1234")
    answer = client.transact(client.sign(message))
    assert answer is not None
    assert code(answer) == 420
    assert answer.get(a.UNKNOWN_ATTRIBUTES) == (0x7001, 0x002B)
    assert a.MESSAGE_INTEGRITY in answer


def test_attributes_of_other_methods_are_ignored() -> None:
    assert code(World().client().allocate((a.CHANGE_REQUEST, 6), (a.PRIORITY, 1), (a.CHANNEL_NUMBER, 1))) == 0


# Families


@pytest.mark.parametrize(("pairs", "host"), [([], "192.0.2.100"), ([V4], "192.0.2.100"), ([V6], "2001:db8::100")])
def test_the_family_asked_for_is_relayed(pairs: list[Pair], host: str) -> None:
    assert [address.host for address in relayed(World().client().allocate(*pairs))] == [host]


def test_an_unknown_family_is_440() -> None:
    assert code(World().client().allocate((a.REQUESTED_ADDRESS_FAMILY, 3))) == 440


@pytest.mark.parametrize(("served", "pairs"), [(Family.IPV4, [V6]), (Family.IPV6, [V4]), (Family.IPV6, [])])
def test_a_family_that_is_not_served_is_440(served: Family, pairs: list[Pair]) -> None:
    world = World(ServerConfig(RealmConfig(REALM), families=frozenset({served})))
    assert code(world.client().allocate(*pairs)) == 440
    assert not world.of(OpenRelay)


IPV4_CLIENT, IPV6_CLIENT = Address("198.51.100.7", 4000), Address("2001:db8::7", 4000)


@pytest.mark.parametrize(
    ("default", "client", "given"),
    [
        (Family.IPV4, IPV6_CLIENT, Family.IPV4),
        (Family.IPV6, IPV4_CLIENT, Family.IPV6),
        (None, IPV4_CLIENT, Family.IPV4),
        (None, IPV6_CLIENT, Family.IPV6),
    ],
)
def test_the_family_of_who_names_none_is_what_the_settings_say(
    default: Family | None, client: Address, given: Family
) -> None:
    world = World(ServerConfig(RealmConfig(REALM), default_family=default))
    assert [each.family for each in relayed(world.client(address=client).allocate())] == [given]
    for asked, pair in ((Family.IPV4, V4), (Family.IPV6, V6)):
        other = world.client(address=Address(client.host, 5000 + asked))
        assert [each.family for each in relayed(other.allocate(pair))] == [asked]


def test_the_family_of_a_client_that_is_not_served_gives_way() -> None:
    world = World(ServerConfig(RealmConfig(REALM), families=frozenset({Family.IPV4}), default_family=None))
    assert [each.family for each in relayed(world.client(address=IPV6_CLIENT).allocate())] == [Family.IPV4]


def test_a_family_that_cannot_be_opened_has_the_code_of_the_failure() -> None:
    world = World()
    world.plane.families = {Family.IPV4}
    client = world.client()
    assert code(client.allocate(V6)) == 440
    assert code(client.allocate()) == 0


def test_both_family_attributes_together_are_400() -> None:
    assert code(World().client().allocate(V4, DUAL)) == 400


@pytest.mark.parametrize("family", [0, 1, 3])
def test_an_additional_family_other_than_ipv6_is_400(family: int) -> None:
    assert code(World().client().allocate((a.ADDITIONAL_ADDRESS_FAMILY, family))) == 400


def test_a_dual_allocation_has_an_address_of_each_family() -> None:
    answer = World().client().allocate(DUAL)
    assert [address.family for address in relayed(answer)] == [Family.IPV4, Family.IPV6]
    assert a.ADDRESS_ERROR_CODE not in answer


@pytest.mark.parametrize("missing", Family)
def test_half_a_dual_allocation_tells_440_for_the_family_that_is_not_served(missing: Family) -> None:
    world = World(ServerConfig(RealmConfig(REALM), families=frozenset(Family) - {missing}))
    answer = world.client().allocate(DUAL)
    assert [address.family for address in relayed(answer)] == [family for family in Family if family is not missing]
    assert answer.get(a.ADDRESS_ERROR_CODE) == (missing, 440, "Address Family not Supported")


@pytest.mark.parametrize("missing", Family)
def test_half_a_dual_allocation_tells_508_for_the_family_that_is_full(missing: Family) -> None:
    world = World()
    world.plane.broken[missing] = ErrorCode.INSUFFICIENT_CAPACITY
    answer = world.client().allocate(DUAL)
    assert len(relayed(answer)) == 1
    assert answer.get(a.ADDRESS_ERROR_CODE) == (missing, 508, "Insufficient Capacity")


def test_a_dual_allocation_that_gets_nothing_is_508() -> None:
    world = World()
    world.plane.broken.update(
        {Family.IPV4: ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED, Family.IPV6: ErrorCode.INSUFFICIENT_CAPACITY}
    )
    assert code(world.client().allocate(DUAL)) == 508
    assert len(world.server) == 0


# EVEN-PORT and reservations


def test_even_port() -> None:
    world = World()
    world.client().allocate()
    assert relayed(world.client().allocate(EVEN))[0].port % 2 == 0
    assert not world.plane.held


def test_a_dual_allocation_may_ask_for_even_ports() -> None:
    world = World()
    world.client().allocate()
    assert all(address.port % 2 == 0 for address in relayed(world.client().allocate(DUAL, EVEN)))


def test_a_dual_allocation_cannot_reserve() -> None:
    assert code(World().client().allocate(DUAL, PAIR)) == 400


def test_a_reserved_port_goes_to_who_shows_the_token() -> None:
    world = World()
    first = world.client().allocate(PAIR)
    port = relayed(first)[0].port
    assert port % 2 == 0
    second = world.client("bob").allocate((a.RESERVATION_TOKEN, token_of(first)))
    assert relayed(second) == [Address("192.0.2.100", port + 1)]
    assert not world.plane.held


def test_a_token_serves_once() -> None:
    world = World()
    token = token_of(world.client().allocate(PAIR))
    world.client().allocate((a.RESERVATION_TOKEN, token))
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token))) == 508


def test_an_unknown_token_is_508() -> None:
    assert code(World().client().allocate((a.RESERVATION_TOKEN, bytes(8)))) == 508


@pytest.mark.parametrize("pair", [V4, DUAL, EVEN, PAIR], ids=["V4", "DUAL", "EVEN", "PAIR"])
def test_a_token_with_a_wish_for_a_port_or_family_is_400(pair: Pair) -> None:
    world = World()
    token = token_of(world.client().allocate(PAIR))
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token), pair)) == 400
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token))) == 0


def test_a_reservation_is_held_for_30_seconds_and_then_given_up() -> None:
    world = World()
    token = token_of(world.client().allocate(PAIR))
    world.pass_time(29.999)
    assert token in world.plane.held
    world.pass_time(0.001)
    assert world.of(ReleaseReservation) == [ReleaseReservation(token)]
    assert not world.plane.held
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token))) == 508


def test_a_claimed_reservation_is_not_given_up_later() -> None:
    world = World()
    token = token_of(world.client().allocate(PAIR))
    world.client().allocate((a.RESERVATION_TOKEN, token))
    world.pass_time(60)
    assert not world.of(ReleaseReservation)
    assert len(world.plane.sessions) == 2


def test_a_reservation_outlives_its_owner() -> None:
    world = World()
    owner = world.client()
    token = token_of(owner.allocate(PAIR))
    owner.refresh((a.LIFETIME, 0))
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token))) == 0


def test_a_request_that_is_refused_for_another_reason_keeps_its_token() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=1)))
    token = token_of(world.client().allocate(PAIR))
    assert code(world.client().allocate((a.RESERVATION_TOKEN, token))) == 486
    assert code(world.client("bob").allocate((a.RESERVATION_TOKEN, token))) == 0


def test_held_ports_count_by_user_so_that_nobody_holds_them_all() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=2)))
    client = world.client()
    for _ in range(2):
        assert code(client.allocate(PAIR)) == 0
        client.refresh((a.LIFETIME, 0))
    assert code(client.allocate(PAIR)) == 486
    assert code(client.allocate(EVEN)) == 0
    assert code(world.client("bob").allocate(PAIR)) == 0
    world.pass_time(30)
    assert code(world.client().allocate(PAIR)) == 0


def test_the_table_of_reservations_is_bounded() -> None:
    world = World(ServerConfig(RealmConfig(REALM), reservations=2))
    assert [code(world.client().allocate(PAIR)) for _ in range(3)] == [0, 0, 508]
    assert len(world.plane.held) == 2


# Quotas, capacity, redirects


def test_the_user_quota_is_486_and_is_each_users_own() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=2)))
    clients = [world.client() for _ in range(3)]
    assert [code(client.allocate()) for client in clients] == [0, 0, 486]
    assert code(world.client("bob").allocate()) == 0
    clients[0].refresh((a.LIFETIME, 0))
    assert code(clients[2].allocate()) == 0


def test_a_default_user_quota_exists() -> None:
    world = World()
    codes = [code(world.client().allocate()) for _ in range(13)]
    assert codes == [0] * 12 + [486]


def test_a_quota_of_zero_is_none() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=0)))
    assert {code(world.client().allocate()) for _ in range(50)} == {0}


def test_a_full_server_is_508() -> None:
    world = World(ServerConfig(RealmConfig(REALM), allocations=2))
    assert [code(world.client().allocate()) for _ in range(3)] == [0, 0, 508]


def test_no_free_port_is_508_and_leaves_nothing() -> None:
    world = World()
    world.plane.broken[Family.IPV4] = ErrorCode.INSUFFICIENT_CAPACITY
    client = world.client()
    answer = client.allocate()
    assert code(answer) == 508
    assert names(answer) == ["ERROR-CODE", "SOFTWARE", "MESSAGE-INTEGRITY"]
    assert len(world.server) == 0
    world.plane.broken.clear()
    assert code(client.allocate()) == 0


def test_a_draining_server_refuses_new_allocations_and_serves_old_ones() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.server.drain()
    assert code(world.client().allocate()) == 508
    assert code(client.refresh()) == 0


ELSEWHERE = Redirect(
    (Address("203.0.113.5", 3478), Address("2001:db8::5", 3478), Address("203.0.113.6", 3478)), domain="turn.example"
)


def test_a_full_or_draining_server_names_another() -> None:
    world = World(ServerConfig(RealmConfig(REALM), allocations=1, redirect=ELSEWHERE))
    client = world.client()
    assert code(client.allocate()) == 0
    answer = world.client().allocate()
    assert code(answer) == 300
    assert list(answer.all(a.ALTERNATE_SERVER)) == [Address("203.0.113.5", 3478), Address("2001:db8::5", 3478)]
    assert answer.get(a.ALTERNATE_DOMAIN) == "turn.example"
    client.refresh((a.LIFETIME, 0))
    world.server.drain()
    assert code(client.allocate()) == 300


def test_a_redirect_for_all_takes_turns_and_begins_with_the_clients_family() -> None:
    world = World(ServerConfig(RealmConfig(REALM), redirect=Redirect(ELSEWHERE.to, always=True)))
    firsts = [next(world.client().allocate().all(a.ALTERNATE_SERVER)).host for _ in range(3)]
    assert firsts == ["203.0.113.5", "203.0.113.6", "203.0.113.5"]
    six = world.client(address=Address("2001:db8:1::1", 1), server=Address("2001:db8::1", 3478))
    answer = six.allocate()
    assert [address.family for address in answer.all(a.ALTERNATE_SERVER)] == [Family.IPV6, Family.IPV4]
    assert a.ALTERNATE_DOMAIN not in answer


def test_without_another_server_of_the_clients_family_there_is_no_redirect() -> None:
    world = World(ServerConfig(RealmConfig(REALM), redirect=Redirect((Address("2001:db8::5", 3478),), always=True)))
    assert code(world.client().allocate()) == 0


# Retransmission (RFC 8489 section 6.3.1)


def test_a_retransmission_gets_the_very_answer_again() -> None:
    world = World()
    client = world.client()
    client.challenge()
    data = client.sign(client.message(Method.ALLOCATE, UDP_RELAY, PAIR))
    first = client.deliver(data)
    world.pass_time(5)
    assert client.deliver(data) == first
    assert len(world.server) == len(world.of(OpenRelay)) == 1


def test_a_retransmission_by_another_user_is_437() -> None:
    world = World()
    client = world.client()
    message = client.message(Method.ALLOCATE, UDP_RELAY)
    assert code(client.transact(client.sign(message))) == 0
    other = world.client("bob", address=client.five_tuple.client)
    again = Message(Method.ALLOCATE, message.message_class, message.transaction_id).add(*UDP_RELAY)
    other.challenge()
    assert code(other.transact(other.sign(again))) == 437


def test_a_retransmission_while_the_relay_is_being_opened_opens_no_second() -> None:
    world = World()
    world.hold_relays = True
    client = world.client()
    client.challenge()
    data = client.sign(client.message(Method.ALLOCATE, UDP_RELAY))
    assert client.deliver(data) == client.deliver(data) == []
    world.answer_all()
    assert len(client.mailbox()) == len(world.of(OpenRelay)) == 1


def test_a_late_retransmission_of_a_refusal_is_judged_anew() -> None:
    world = World(ServerConfig(RealmConfig(REALM), allocations=1))
    holder, client = world.client(), world.client("bob")
    holder.allocate()
    client.challenge()
    data = client.sign(client.message(Method.ALLOCATE, UDP_RELAY))
    assert code(client.transact(data)) == 508
    holder.refresh((a.LIFETIME, 0))
    assert code(client.transact(data)) == 0


def test_the_end_is_told_before_the_relay_closes() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.clear()
    world.pass_time(600)
    kinds = [type(command).__name__ for command in world.commands]
    assert kinds == ["AllocationEnded", "CloseRelay"]
    (ended,) = world.of(AllocationEnded)
    assert ended.duration == 600
    assert ended.reason.value == "expired"


def test_allocations_are_listed_once_they_have_a_relay() -> None:
    world = World()
    alice, bob = world.client(), world.client("bob")
    assert code(alice.allocate()) == 0
    world.hold_relays = True
    bob.deliver(bob.sign(bob.message(Method.ALLOCATE, UDP_RELAY)))
    assert [each.five_tuple for each in world.server.allocations()] == [alice.five_tuple]
    world.answer_all()
    listed = list(world.server.allocations())
    assert [(each.username, each.realm, len(each.relayed)) for each in listed] == [
        ("alice", REALM, 1),
        ("bob", REALM, 1),
    ]
