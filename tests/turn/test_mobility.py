"""Mobility in the rules (RFC 8016): tickets, who may use them and how often, and when a client is served elsewhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import pytest

from tests.turn.test_snapshot import succeed
from tests.turn.test_third_party import NORTH, Bearer
from tests.turn.world import PEER, REALM, SERVER, USERS, Client, Pair, Style, World, code
from turnsvr.credentials.accesstokens import AccessTokens, ByToken
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message, Method
from turnsvr.turn.commands import AllocationEnded, AllocationMoved, EndReason, ExpectClient, FindCredential, MoveRelay
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.nonce import SECRET_SIZE
from turnsvr.turn.tickets import Ticket, Tickets

OFF = ServerConfig(RealmConfig(REALM))
ON = replace(OFF, mobility=True)
WANTED: Pair = (a.MOBILITY_TICKET, b"")
CHANNEL = 0x4000
_connections = count(1)


def there(transport: Transport = Transport.UDP, host: str = "203.0.113.5", port: int = 7000) -> FiveTuple:
    """A five-tuple that no client has."""
    number = next(_connections) if transport.is_stream else 0
    return FiveTuple(transport, Address(host, port), SERVER, number)


def mobile(world: World, transport: Transport = Transport.UDP, **how: Any) -> tuple[Client, bytes]:
    """A client with an allocation and a channel, and its ticket."""
    client = world.client(transport=transport, **how)
    if transport.is_stream:
        client.five_tuple = client.five_tuple._replace(connection=next(_connections))
    answer = client.allocate(WANTED)
    assert code(answer) == 0
    assert code(client.bind(CHANNEL, PEER)) == 0
    world.clear()
    return client, ticket_of(answer)


def ticket_of(answer: Message | None) -> bytes:
    assert answer is not None
    assert code(answer) == 0
    ticket = answer.get(a.MOBILITY_TICKET)
    assert ticket is not None
    return ticket


def moved(client: Client, five_tuple: FiveTuple) -> Client:
    """The same user somewhere else."""
    other = Client(client.world, client.username, client.password, address=five_tuple.client, style=client.style)
    other.five_tuple = five_tuple
    return other


def move(client: Client, ticket: bytes, *pairs: Pair) -> Message:
    return client.refresh((a.MOBILITY_TICKET, ticket), *pairs)


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("before", list(Transport))
@pytest.mark.parametrize("after", list(Transport))
def test_make_before_break(before: Transport, after: Transport, style: Style) -> None:
    world = World(ON)
    client, ticket = mobile(world, before, style=style)
    old, new = client.five_tuple, there(after)
    elsewhere = moved(client, new)
    second = ticket_of(move(elsewhere, ticket))
    assert second != ticket
    assert world.of(ExpectClient) == [ExpectClient(new)]
    assert not world.of(MoveRelay)
    assert client.channel_data(CHANNEL, b"still here"), "the old five-tuple is served until the new one is proven"
    assert code(elsewhere.permit(PEER)) == 0, "requests are taken from both"
    assert code(client.permit(PEER)) == 0
    assert not world.of(MoveRelay)
    (relayed,) = elsewhere.channel_data(CHANNEL, b"here I am")
    assert relayed.data == b"here I am"
    assert world.of(MoveRelay) == [MoveRelay(1, new)]
    assert [event for event in world.events if isinstance(event, AllocationMoved)] == [
        AllocationMoved(1, "alice", old, new, REALM)
    ]
    assert not client.channel_data(CHANNEL, b"too late")
    assert code(client.permit(PEER)) == ErrorCode.ALLOCATION_MISMATCH
    assert code(elsewhere.bind(CHANNEL, PEER)) == 0
    assert world.plane.expected == set()
    assert len(world.server) == 1
    assert code(client.allocate()) == 0, "who left may allocate anew"


@pytest.mark.parametrize("after", list(Transport))
def test_a_channel_permits_for_as_long_as_before(after: Transport) -> None:
    """Counted from the last ChannelBind, on whichever path that came."""
    world = World(ON)
    client, ticket = mobile(world)
    world.pass_time(100)
    elsewhere = moved(client, there(after))
    assert code(move(elsewhere, ticket)) == 0
    assert elsewhere.channel_data(CHANNEL, b"here")
    world.pass_time(499.999)
    assert elsewhere.channel_data(CHANNEL, b"still")
    assert elsewhere.send(PEER, b"still")
    assert code(elsewhere.bind(CHANNEL, PEER)) == 0
    assert code(elsewhere.refresh()) == 0
    world.pass_time(599.999)
    assert elsewhere.channel_data(CHANNEL, b"still")
    world.pass_time(0.001)
    assert not elsewhere.channel_data(CHANNEL, b"no channel")
    assert not elsewhere.send(PEER, b"no permission")


def test_a_send_indication_shows_the_move_as_well() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    move(elsewhere, ticket)
    assert elsewhere.send(PEER, b"here")
    assert len(world.of(MoveRelay)) == 1


def test_a_ticket_is_good_once() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    first = moved(client, there(port=7001))
    second_ticket = ticket_of(move(first, ticket))
    third = moved(client, there(port=7002))
    assert code(move(third, ticket)) == ErrorCode.BAD_REQUEST
    assert code(move(first, ticket)) == ErrorCode.BAD_REQUEST
    third_ticket = ticket_of(move(third, second_ticket))
    assert len({ticket, second_ticket, third_ticket}) == 3
    assert world.plane.expected == {third.five_tuple}, "who was announced before is expected no more"
    assert code(first.permit(PEER)) == ErrorCode.ALLOCATION_MISMATCH
    assert third.channel_data(CHANNEL, b"here")
    assert code(move(moved(client, there(port=7003)), third_ticket)) == 0


def test_a_retransmission_gets_the_same_answer() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    elsewhere.challenge()
    request = elsewhere.sign(elsewhere.message(Method.REFRESH, (a.MOBILITY_TICKET, ticket)))
    first = elsewhere.deliver(request)
    assert ticket_of(elsewhere.check(first[0]))
    world.pass_time(30)
    assert elsewhere.deliver(request) == first
    elsewhere.channel_data(CHANNEL, b"here")
    assert elsewhere.deliver(request) == first, "also when the move is over"
    assert len(world.of(MoveRelay)) == 1
    assert not world.of(FindCredential), "the allocation has the key"


def test_data_on_the_old_path_end_with_the_move_alone() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    move(elsewhere, ticket)
    world.pass_time(200)
    assert client.channel_data(CHANNEL, b"still")
    assert code(client.refresh()) == 0
    assert not world.of(MoveRelay)


@pytest.mark.parametrize("after", list(Transport))
def test_the_end_of_the_old_connection_ends_the_wait(after: Transport) -> None:
    world = World(ON)
    client, ticket = mobile(world, Transport.TCP)
    elsewhere = moved(client, there(after))
    move(elsewhere, ticket)
    client.disconnect()
    assert world.of(MoveRelay) == [MoveRelay(1, elsewhere.five_tuple)]
    assert elsewhere.channel_data(CHANNEL, b"here")


@pytest.mark.parametrize("after", list(Transport))
def test_break_before_make(after: Transport) -> None:
    """An allocation whose connection is closed waits for its client, who is served at once when it comes."""
    world = World(ON)
    client, ticket = mobile(world, Transport.TLS)
    client.disconnect()
    assert len(world.server) == 1
    elsewhere = moved(client, there(after))
    ticket_of(move(elsewhere, ticket))
    assert world.of(MoveRelay) == [MoveRelay(1, elsewhere.five_tuple)]
    assert not world.of(ExpectClient)
    assert elsewhere.channel_data(CHANNEL, b"here")


def test_an_allocation_that_nobody_comes_for_expires() -> None:
    world = World(ON)
    client, ticket = mobile(world, Transport.TCP)
    client.disconnect()
    world.pass_time(601)
    assert len(world.server) == 0
    assert [event.reason for event in world.events if isinstance(event, AllocationEnded)] == [EndReason.EXPIRED]
    assert code(move(moved(client, there()), ticket)) == ErrorCode.ALLOCATION_MISMATCH


def test_without_a_ticket_an_allocation_ends_with_its_connection() -> None:
    world = World(ON)
    client = world.client(transport=Transport.TCP)
    client.allocate()
    client.disconnect()
    assert len(world.server) == 0


def test_the_end_of_the_connection_that_was_announced_changes_nothing() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there(Transport.TCP))
    second = ticket_of(move(elsewhere, ticket))
    elsewhere.disconnect()
    assert world.plane.expected == set()
    assert client.channel_data(CHANNEL, b"still")
    assert code(move(moved(client, there()), second)) == 0


def test_an_end_while_the_client_moves_leaves_nothing() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    move(elsewhere, ticket)
    world.server.end(1, EndReason.REVOKED, world.now)
    world.carry_out()
    assert world.plane.expected == set()
    assert not world.plane.sessions
    for each in (client, elsewhere):
        assert code(each.permit(PEER)) == ErrorCode.ALLOCATION_MISMATCH


def test_a_client_ends_its_allocation_from_elsewhere() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    answer = move(elsewhere, ticket, (a.LIFETIME, 0))
    assert (code(answer), answer.get(a.LIFETIME), answer.get(a.MOBILITY_TICKET)) == (0, 0, None)
    assert len(world.server) == 0


def test_a_move_extends_the_allocation() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    world.pass_time(500)
    assert move(moved(client, there()), ticket, (a.LIFETIME, 1200)).get(a.LIFETIME) == 1200
    world.pass_time(1100)
    assert len(world.server) == 1


# Refusals


def test_it_is_off_by_default() -> None:
    world = World(OFF)
    client = world.client()
    assert code(client.allocate(WANTED)) == ErrorCode.MOBILITY_FORBIDDEN
    assert code(client.allocate((a.MOBILITY_TICKET, b"ticket"))) == ErrorCode.MOBILITY_FORBIDDEN
    assert len(world.server) == 0
    answer = client.allocate()
    assert answer.get(a.MOBILITY_TICKET) is None
    assert code(move(client, bytes(32))) == ErrorCode.MOBILITY_FORBIDDEN


def test_a_reload_forbids_it() -> None:
    world = World(ON)
    client, ticket = mobile(world, Transport.TCP)
    world.server.reconfigure(OFF, world.now)
    world.carry_out()
    assert code(move(moved(client, there()), ticket)) == ErrorCode.MOBILITY_FORBIDDEN
    client.disconnect()
    assert len(world.server) == 0, "nobody can come for it"


def test_an_allocate_brings_no_ticket() -> None:
    world = World(ON)
    _, ticket = mobile(world)
    for value in (ticket, b"\0"):
        assert code(world.client().allocate((a.MOBILITY_TICKET, value))) == ErrorCode.BAD_REQUEST
    assert len(world.server) == 1


@pytest.mark.parametrize("text", [b"", b"A" * 31, b"A" * 32, b"A" * 33, b"=" * 32, b"\xff" * 32, bytes(32), b"x" * 900])
def test_what_is_no_ticket(text: bytes) -> None:
    world = World(ON)
    client, _ = mobile(world)
    assert code(move(moved(client, there()), text)) == ErrorCode.BAD_REQUEST
    assert not world.of(ExpectClient)


def test_another_servers_ticket() -> None:
    world, other = World(ON), World(ON, seed=2)
    client, _ = mobile(world)
    _, ticket = mobile(other)
    assert code(move(moved(client, there()), ticket)) == ErrorCode.BAD_REQUEST


def test_a_ticket_of_an_allocation_that_is_over() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    client.refresh((a.LIFETIME, 0))
    assert code(move(moved(client, there()), ticket)) == ErrorCode.ALLOCATION_MISMATCH
    client.allocate(WANTED)
    assert code(move(moved(client, there()), ticket)) == ErrorCode.ALLOCATION_MISMATCH, "it is not for the next one"


@pytest.mark.parametrize("user", ["bob", "alice with another password"])
def test_a_ticket_serves_its_owner_alone(user: str) -> None:
    world = World(ON)
    client, ticket = mobile(world)
    thief = world.client("bob") if user == "bob" else world.client("alice", "looking glass")
    expected = ErrorCode.WRONG_CREDENTIALS if user == "bob" else ErrorCode.UNAUTHENTICATED
    answer = thief.transact(thief.sign(thief.message(Method.REFRESH, (a.MOBILITY_TICKET, ticket))))
    assert code(answer) == expected
    assert not world.of(ExpectClient)
    assert code(move(moved(client, there()), ticket)) == 0, "and it is not spent"


def test_it_needs_no_ticket_to_stay_and_takes_none() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    assert code(move(client, ticket)) == ErrorCode.BAD_REQUEST
    assert code(client.refresh()) == 0
    assert code(move(moved(client, there()), ticket)) == 0


def test_where_another_allocation_is_nothing_moves() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    other, other_ticket = mobile(world)
    assert code(move(other, ticket)) == ErrorCode.BAD_REQUEST
    elsewhere = moved(client, there())
    move(elsewhere, ticket)
    assert code(move(moved(client, elsewhere.five_tuple), other_ticket)) == ErrorCode.BAD_REQUEST
    assert code(elsewhere.allocate()) == ErrorCode.ALLOCATION_MISMATCH, "the five-tuple is taken"


def test_a_wrong_family_spends_no_ticket() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    assert code(move(elsewhere, ticket, (a.REQUESTED_ADDRESS_FAMILY, 2))) == ErrorCode.PEER_ADDRESS_FAMILY_MISMATCH
    assert code(move(elsewhere, ticket)) == 0


def test_a_nonce_is_for_one_address_also_of_a_client_that_moves() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there())
    elsewhere.nonce = client.nonce
    answer = elsewhere.transact(elsewhere.sign(elsewhere.message(Method.REFRESH, (a.MOBILITY_TICKET, ticket))))
    assert code(answer) == ErrorCode.STALE_NONCE
    assert code(move(elsewhere, ticket)) == 0


def test_a_ticket_is_bound_to_the_access_token_that_allocated() -> None:
    """All tokens of a key have one user name, and are not one user."""
    world = World(replace(ON, access_tokens=""), source=ByToken(AccessTokens([NORTH]), StaticUsers(USERS)))
    client = Bearer(world)
    ticket = ticket_of(client.allocate(WANTED))
    thief = Bearer(world)
    assert code(thief.renew((a.MOBILITY_TICKET, ticket))) == ErrorCode.WRONG_CREDENTIALS
    owner = Bearer(world)
    owner.token, owner.mac_key = client.token, client.mac_key
    second = ticket_of(owner.refresh((a.MOBILITY_TICKET, ticket)))
    third = Bearer(world)
    third.token, third.mac_key = client.token, client.mac_key
    assert code(third.renew((a.MOBILITY_TICKET, second))) == 0


# Tickets


def test_tickets_are_sealed() -> None:
    tickets, others = Tickets(bytes(32)), Tickets(bytes(31) + b"\1")
    sealed = tickets.seal(Ticket(7, 1))
    assert len(sealed) == 32
    assert sealed.decode().isascii(), "coturn's clients take it for text"
    assert tickets.open(sealed) == (7, 1)
    assert others.open(sealed) is None
    assert tickets.open(sealed[:-1] + (b"A" if sealed[-1:] != b"A" else b"B")) is None
    assert len({tickets.seal(Ticket(number, serial)) for number in range(50) for serial in range(50)}) == 2500


def test_an_allocation_has_no_more_tickets_than_can_be_told_apart() -> None:
    world = World(ON)
    client, _ = mobile(world)
    (allocation,) = world.server.allocations()
    allocation.tickets = 2**24 - 1
    ticket = Tickets(Random(1).randbytes(SECRET_SIZE)).seal(Ticket(1, 2**24 - 1))
    assert code(move(moved(client, there()), ticket)) == ErrorCode.MOBILITY_FORBIDDEN


# Hand-over to another process


def test_a_ticket_is_good_in_the_process_that_takes_over() -> None:
    world = World(ON)
    client, ticket = mobile(world, Transport.TCP)
    client.disconnect()
    succeed(world, ON)
    elsewhere = moved(client, there())
    second = ticket_of(move(elsewhere, ticket))
    assert world.of(MoveRelay) == [MoveRelay(1, elsewhere.five_tuple)], "its connection is gone, as was known before"
    assert code(move(moved(client, there(port=7001)), ticket)) == ErrorCode.BAD_REQUEST, "a spent one is not"
    assert code(move(moved(client, there(port=7001)), second)) == 0


def test_a_hand_over_in_the_middle_of_a_move() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there(Transport.TCP))
    move(elsewhere, ticket)
    world.plane.expected.clear()
    succeed(world, ON)
    world.carry_out()
    assert world.plane.expected == {elsewhere.five_tuple}, "the other pump is told as well"
    assert client.channel_data(CHANNEL, b"still")
    assert elsewhere.channel_data(CHANNEL, b"here")
    assert world.of(MoveRelay) == [MoveRelay(1, elsewhere.five_tuple)]


def test_a_connection_with_a_cipher_stays_behind_and_its_client_may_come_again() -> None:
    world = World(ON)
    client, ticket = mobile(world)
    elsewhere = moved(client, there(Transport.TLS))
    second = ticket_of(move(elsewhere, ticket))
    world.plane.expected.clear()
    succeed(world, ON)
    world.carry_out()
    assert world.plane.expected == set()
    again = moved(client, there(Transport.TLS))
    assert code(move(again, second)) == 0
    assert again.channel_data(CHANNEL, b"here")
