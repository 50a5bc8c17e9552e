"""The Binding method: plain, for RFC 3489 clients, and the behaviour tests of RFC 5780."""

from __future__ import annotations

import pytest

from tests.turn.world import REALM, SERVER, Client, Pair, World, code, names, raw
from turnsvr.limits import AnswerLimiter
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import Send
from turnsvr.turn.config import OtherAddress, RealmConfig, ServerConfig

A1, A2, P1, P2 = "192.0.2.1", "192.0.2.2", 3478, 3479
FOUR = {
    Address(host, port): OtherAddress(A2 if host == A1 else A1, P2 if port == P1 else P1)
    for host in (A1, A2)
    for port in (P1, P2)
}
"""Two addresses with two ports each (RFC 5780 section 6)."""
TWO = {Address(A1, port): OtherAddress(None, P2 if port == P1 else P1) for port in (P1, P2)}
"""One address with two ports."""


def behaviour(config: dict[Address, OtherAddress] | None = None) -> World:
    return World(ServerConfig(RealmConfig(REALM), other_addresses=FOUR if config is None else config))


def binding(client: Client, *pairs: Pair) -> Message | None:
    return client.transact(client.message(Method.BINDING, *pairs).encode())


@pytest.mark.parametrize("host", ["198.51.100.7", "2001:db8::7"])
@pytest.mark.parametrize("transport", Transport)
def test_the_answer_tells_the_clients_address(host: str, transport: Transport) -> None:
    client = World().client(address=Address(host, 54321), transport=transport)
    answer = binding(client)
    assert answer is not None
    assert code(answer) == 0
    assert names(answer) == ["XOR-MAPPED-ADDRESS", "SOFTWARE"]
    assert answer.get(a.XOR_MAPPED_ADDRESS) == Address(host, 54321)
    assert answer.get(a.SOFTWARE) == "turnsvr"


def test_software_can_be_switched_off() -> None:
    assert names(binding(World(ServerConfig(RealmConfig(REALM), software=None)).client())) == ["XOR-MAPPED-ADDRESS"]


def test_fingerprint_is_answered_with_fingerprint() -> None:
    client = World().client()
    answer = client.transact(client.message(Method.BINDING).encode(fingerprint=True))
    assert names(answer)[-1] == "FINGERPRINT"


def test_a_wrong_fingerprint_is_not_answered() -> None:
    client = World().client()
    data = bytearray(client.message(Method.BINDING).encode(fingerprint=True))
    data[-1] ^= 1
    assert client.transact(bytes(data)) is None


def test_credentials_change_nothing() -> None:
    client = World().client()
    answer = client.transact(client.message(Method.BINDING, (a.USERNAME, "x:y")).encode(key=b"short-term"))
    assert names(answer) == ["XOR-MAPPED-ADDRESS", "SOFTWARE"]


def test_a_connectivity_check_of_ice_is_answered() -> None:
    answer = binding(World().client(), (a.PRIORITY, 1), (a.ICE_CONTROLLING, 1), (a.USE_CANDIDATE, True))
    assert code(answer) == 0


def test_unknown_required_attributes_are_420_each_once() -> None:
    client = World().client()
    message = client.message(Method.BINDING)
    for number in (0x0002, 0x7FFF, 0x0002, 0x8001 + 0x7000):
        raw(message, number, b"")
    answer = client.transact(message.encode())
    assert answer is not None
    assert code(answer) == 420
    assert answer.get(a.UNKNOWN_ATTRIBUTES) == (0x0002, 0x7FFF)


@pytest.mark.parametrize("message_class", [Class.INDICATION, Class.SUCCESS, Class.ERROR])
def test_only_requests_are_answered(message_class: Class) -> None:
    client = World().client()
    assert client.transact(client.message(Method.BINDING, message_class=message_class).encode()) is None


def test_binding_leaves_an_allocation_alone() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert code(binding(client)) == 0
    assert len(world.server) == 1


# RFC 3489


def classic(client: Client, *pairs: Pair) -> Message | None:
    message = Message(Method.BINDING, Class.REQUEST, b"\1" * 16)
    for attribute, value in pairs:
        message.add(attribute, value)
    return client.transact(message.encode())


def test_rfc_3489_is_off_by_default() -> None:
    assert classic(World().client()) is None


def test_an_rfc_3489_client_gets_mapped_and_source_address() -> None:
    client = World(ServerConfig(RealmConfig(REALM), rfc3489=True)).client()
    answer = classic(client)
    assert answer is not None
    assert answer.transaction_id == b"\1" * 16
    assert names(answer) == ["MAPPED-ADDRESS", "SOURCE-ADDRESS"]
    assert answer.get(a.MAPPED_ADDRESS) == client.five_tuple.client
    assert answer.get(a.SOURCE_ADDRESS) == SERVER


def test_an_rfc_3489_client_may_ask_for_no_change() -> None:
    """Such clients send a blank CHANGE-REQUEST with every request."""
    assert code(classic(World(ServerConfig(RealmConfig(REALM), rfc3489=True)).client(), (a.CHANGE_REQUEST, 0))) == 0


def test_an_rfc_3489_client_that_asks_for_a_change_is_told_420() -> None:
    assert code(classic(World(ServerConfig(RealmConfig(REALM), rfc3489=True)).client(), (a.CHANGE_REQUEST, 6))) == 420


def test_an_rfc_3489_client_gets_its_change_where_it_is_served() -> None:
    world = World(ServerConfig(RealmConfig(REALM), rfc3489=True, other_addresses=FOUR))
    client = world.client()
    assert classic(client, (a.CHANGE_REQUEST, 6)) is None
    ((path, (data,)),) = world.mail.items()
    answer = Message.parse(data, classic=True)
    assert path.server == answer.get(a.SOURCE_ADDRESS) == answer.get(a.CHANGED_ADDRESS) == Address(A2, P2)


def test_errors_for_rfc_3489_clients_have_no_padding() -> None:
    """RFC 3489 section 11.2: every attribute is a multiple of four bytes."""
    client = World(ServerConfig(RealmConfig(REALM), rfc3489=True)).client()
    message = raw(Message(Method.BINDING, Class.REQUEST, b"\1" * 16), 0x0002)
    answer = client.transact(message.encode())
    assert answer is not None
    assert code(answer) == 420
    assert answer.get(a.UNKNOWN_ATTRIBUTES) == (2, 2)
    assert all(len(value) % 4 == 0 for _, value in answer._attributes)


def test_turn_knows_no_rfc_3489() -> None:
    client = World(ServerConfig(RealmConfig(REALM), rfc3489=True)).client()
    message = Message(Method.ALLOCATE, Class.REQUEST, b"\1" * 16).add(a.REQUESTED_TRANSPORT, 17)
    assert client.transact(message.encode()) is None


# RFC 5780


@pytest.mark.parametrize("flags", [None, 0, 2, 4, 6])
@pytest.mark.parametrize("server", FOUR)
def test_change_request_by_table_1(server: Address, flags: int | None) -> None:
    world = behaviour()
    client = world.client(server=server)
    other = FOUR[server]
    assert other.host is not None
    client.deliver(client.message(Method.BINDING, *([] if flags is None else [(a.CHANGE_REQUEST, flags)])).encode())
    (send,) = world.of(Send)
    source = Address(other.host if (flags or 0) & 4 else server.host, other.port if (flags or 0) & 2 else server.port)
    assert send.five_tuple == FiveTuple(Transport.UDP, client.five_tuple.client, source)
    answer = Message.parse(send.data)
    assert answer.get(a.RESPONSE_ORIGIN) == source
    assert answer.get(a.OTHER_ADDRESS) == Address(other.host, other.port)
    assert answer.get(a.XOR_MAPPED_ADDRESS) == answer.get(a.MAPPED_ADDRESS) == client.five_tuple.client


@pytest.mark.parametrize(
    "pair",
    [*((a.CHANGE_REQUEST, flags) for flags in (2, 4, 6, 0xFFFFFFFF)), (a.RESPONSE_PORT, 9), (a.PADDING, b"x")],
)
def test_what_a_server_without_another_address_cannot_do_is_420(pair: Pair) -> None:
    answer = binding(World().client(), pair)
    assert answer is not None
    assert code(answer) == 420
    assert answer.get(a.UNKNOWN_ATTRIBUTES) == (pair[0].number,)


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("other_addresses", [{}, TWO, FOUR])
@pytest.mark.parametrize("reserved_bits", [0, 1, 8, 0xFFFFFFF9])
def test_a_change_request_without_flags_asks_for_nothing(
    other_addresses: dict[Address, OtherAddress], transport: Transport, reserved_bits: int
) -> None:
    client = behaviour(other_addresses).client(transport=transport)
    answer = binding(client, (a.CHANGE_REQUEST, reserved_bits))
    assert code(answer) == 0
    assert names(answer) == names(binding(client))


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("other_addresses", [{}, TWO, FOUR])
def test_the_clients_own_port_as_response_port_asks_for_nothing(
    other_addresses: dict[Address, OtherAddress], transport: Transport
) -> None:
    client = behaviour(other_addresses).client(transport=transport)
    assert code(binding(client, (a.RESPONSE_PORT, client.five_tuple.client.port))) == 0


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("other_addresses", [{}, TWO, FOUR])
def test_no_bytes_of_padding_are_answered_with_none(
    other_addresses: dict[Address, OtherAddress], transport: Transport
) -> None:
    answer = binding(behaviour(other_addresses).client(transport=transport), (a.PADDING, b""))
    assert answer is not None
    assert answer.get(a.PADDING) == b""


@pytest.mark.parametrize(("flags", "port"), [(0, P1), (2, P2)])
def test_one_address_with_two_ports_changes_the_port(flags: int, port: int) -> None:
    world = behaviour(TWO)
    client = world.client()
    client.deliver(client.message(Method.BINDING, (a.CHANGE_REQUEST, flags)).encode())
    (send,) = world.of(Send)
    assert send.five_tuple.server == Address(A1, port)
    answer = Message.parse(send.data)
    assert answer.get(a.RESPONSE_ORIGIN) == Address(A1, port)
    assert a.OTHER_ADDRESS not in answer


@pytest.mark.parametrize("flags", [4, 6])
def test_one_address_with_two_ports_cannot_change_the_address(flags: int) -> None:
    assert code(binding(behaviour(TWO).client(), (a.CHANGE_REQUEST, flags))) == 420


def test_a_stream_cannot_change_its_addresses() -> None:
    world = behaviour()
    for transport in (Transport.TCP, Transport.TLS):
        client = world.client(transport=transport)
        for pair in ((a.CHANGE_REQUEST, 2), (a.CHANGE_REQUEST, 6), (a.RESPONSE_PORT, 99)):
            assert code(binding(client, pair)) == 420
        assert names(binding(client)) == [
            "XOR-MAPPED-ADDRESS",
            "MAPPED-ADDRESS",
            "RESPONSE-ORIGIN",
            "OTHER-ADDRESS",
            "SOFTWARE",
        ]


def test_response_port_is_where_the_answer_goes() -> None:
    world = behaviour()
    client = world.client()
    assert client.transact(client.message(Method.BINDING, (a.RESPONSE_PORT, 7777)).encode()) is None
    (path,) = world.mail
    assert path.client == Address(client.five_tuple.client.host, 7777)
    assert Message.parse(world.mail[path][0]).get(a.XOR_MAPPED_ADDRESS) == client.five_tuple.client


def test_response_port_zero_is_400() -> None:
    assert code(binding(behaviour().client(), (a.RESPONSE_PORT, 0))) == 400


def test_padding_with_response_port_is_400() -> None:
    assert code(binding(behaviour().client(), (a.PADDING, bytes(8)), (a.RESPONSE_PORT, 7777))) == 400


@pytest.mark.parametrize("size", [0, 1, 500, 1500, 9000])
def test_padding_is_answered_and_never_with_more(size: int) -> None:
    client = behaviour().client()
    request = client.message(Method.BINDING, (a.PADDING, b"\xaa" * size)).encode()
    answer = client.transact(request)
    assert answer is not None
    assert answer.get(a.PADDING) == bytes(min(size, 1500))


def test_a_malformed_change_request_is_400() -> None:
    client = behaviour().client()
    assert code(client.transact(raw(client.message(Method.BINDING), a.CHANGE_REQUEST.number, b"\0").encode())) == 400


@pytest.mark.parametrize("other_addresses", [{}, TWO, FOUR])
def test_the_suffix_for_the_pump_is_what_the_rules_say(other_addresses: dict[Address, OtherAddress]) -> None:
    """All but MAPPED-ADDRESS, which no fixed suffix can hold."""
    world = behaviour(other_addresses)
    answer = binding(world.client())
    assert answer is not None
    suffix = world.server.binding_suffix(SERVER)
    fixed = Message.parse(b"\x01\x01" + len(suffix).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + suffix)
    clients_own = {a.XOR_MAPPED_ADDRESS.number, a.MAPPED_ADDRESS.number}
    assert fixed.numbers() == [number for number in answer.numbers() if number not in clients_own]
    for attribute in (a.RESPONSE_ORIGIN, a.OTHER_ADDRESS):
        assert fixed.get(attribute) == answer.get(attribute)
    assert fixed.get(a.SOFTWARE) == answer.get(a.SOFTWARE)


# Rate


def test_answers_to_one_address_are_limited() -> None:
    world = World(limiter=AnswerLimiter(5))
    ports = [world.client() for _ in range(20)]
    assert sum(binding(client) is not None for client in ports) == 5
    assert binding(world.client(address=Address("198.51.100.8", 1))) is not None
    world.pass_time(1)
    assert sum(binding(client) is not None for client in ports) == 5


def test_refusals_to_one_address_are_limited_too() -> None:
    world = World(limiter=AnswerLimiter(3))
    client = world.client()
    answers = [client.transact(client.message(Method.ALLOCATE).encode()) for _ in range(10)]
    assert sum(answer is not None for answer in answers) == 3


def test_an_ipv6_client_is_its_64() -> None:
    world = World(limiter=AnswerLimiter(2))
    clients = [world.client(address=Address(f"2001:db8:0:1::{number:x}", 1)) for number in range(5)]
    assert sum(binding(client) is not None for client in clients) == 2
    assert binding(world.client(address=Address("2001:db8:0:2::1", 1))) is not None


def test_streams_are_not_limited() -> None:
    world = World(limiter=AnswerLimiter(1))
    client = world.client(transport=Transport.TCP)
    assert all(binding(client) is not None for _ in range(10))


def test_who_has_proven_who_it_is_is_not_limited() -> None:
    world = World(limiter=AnswerLimiter(1))
    client = world.client()
    client.challenge()
    client.allocate()
    assert all(code(client.refresh()) == 0 for _ in range(10))
