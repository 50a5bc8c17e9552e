"""What TURN servers have been attacked with, each by its name, against the codec and the rules."""

from __future__ import annotations

import gc
import hmac
import tracemalloc
from collections.abc import Callable
from random import Random

import pytest

from tests.turn.test_allocate import DUAL, PAIR
from tests.turn.test_binding import FOUR
from tests.turn.world import OTHER_PEER, PEER, REALM, SERVER, UDP_RELAY, Client, World, code, names, raw
from turnsvr.limits import AnswerLimiter
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import AuthenticationFailed, FindCredential, Send
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.server import Server

# Peers: what an open relay would lead into


INSIDE = (
    *("169.254.169.254", "127.0.0.1", "0.0.0.0", "10.0.0.1", "192.168.1.1", "224.0.0.251", "255.255.255.255"),
    *("::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1", "fd00:ec2::254"),
)


@pytest.mark.parametrize("host", INSIDE)
def test_the_hosts_own_and_private_networks_are_out_of_reach(host: str) -> None:
    client = World().client()
    client.allocate(DUAL)
    peer = Address(host, 80)
    assert code(client.permit(peer)) == code(client.bind(0x4000, peer)) == 403
    assert not client.send(peer, b"GET / HTTP/1.0\r\n\r\n")
    assert not client.channel_data(0x4000, b"GET / HTTP/1.0\r\n\r\n")


def test_a_refused_peer_hidden_among_good_ones_is_refused_with_them() -> None:
    client = World().client()
    client.allocate()
    assert code(client.permit(PEER, OTHER_PEER, Address("127.0.0.1", 1))) == 403
    assert not client.send(PEER, b"x")


def test_nothing_is_relayed_without_credentials() -> None:
    world = World()
    client = world.client()
    for request in (Method.ALLOCATE, Method.CREATE_PERMISSION, Method.CHANNEL_BIND, Method.REFRESH):
        pairs = (UDP_RELAY, (a.XOR_PEER_ADDRESS, PEER), (a.CHANNEL_NUMBER, 0x4000))
        assert code(client.transact(client.message(request, *pairs).encode())) == 401
    assert not client.send(PEER, b"x")
    assert not client.channel_data(0x4000, b"x")
    assert not world.plane.sessions


def test_an_empty_password_and_an_empty_name_open_nothing() -> None:
    world = World()
    for username, password in (("", ""), ("alice", ""), ("root", ""), ("admin", "admin")):
        assert code(world.client(username, password).allocate()) == 401


# Codes that others got wrong


def test_permission_and_channel_without_an_allocation_are_437() -> None:
    client = World().client()
    assert code(client.permit(PEER)) == code(client.bind(0x4000, PEER)) == 437


def test_an_unsupported_transport_is_442() -> None:
    assert code(World().client().request(Method.ALLOCATE, (a.REQUESTED_TRANSPORT, 6))) == 442


def test_an_unknown_reservation_is_508() -> None:
    assert code(World().client().allocate((a.RESERVATION_TOKEN, b"whatever"))) == 508


def test_both_family_attributes_are_400() -> None:
    assert code(World().client().allocate((a.REQUESTED_ADDRESS_FAMILY, 1), DUAL)) == 400


def test_nothing_is_relayed_after_the_end() -> None:
    client = World().client()
    client.allocate()
    client.bind(0x4000, PEER)
    client.refresh((a.LIFETIME, 0))
    assert not client.send(PEER, b"x")
    assert not client.channel_data(0x4000, b"x")


def test_there_is_a_user_quota_by_default() -> None:
    world = World()
    assert 486 in [code(world.client().allocate()) for _ in range(20)]


# The parser


def framed(body: bytes, *, length: int | None = None, kind: int = 0x0003) -> bytes:
    size = len(body) if length is None else length
    return kind.to_bytes(2, "big") + size.to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + body


BROKEN = {
    "length 0xFFFF": framed(b"", length=0xFFFF),
    "length 0xFFFC": framed(b"", length=0xFFFC),
    "length not a multiple of four": framed(bytes(6)),
    "length beyond the end": framed(bytes(4), length=8),
    "length before the end": framed(bytes(8), length=4),
    "attribute past the end": framed(b"\x00\x06\x00\x08root"),
    "attribute of 0xFFFF bytes": framed(b"\x00\x06\xff\xff" + bytes(8)),
    "first bits set": b"\xc0\x03" + framed(b"")[2:],
    "no cookie": framed(b"")[:4] + bytes(16),
    "header cut": framed(b"")[:19],
    "nothing": b"",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_parsed_is_met_with_silence(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Message.parse(data)
    world = World()
    for transport in Transport:
        assert world.client(transport=transport).transact(data) is None


@pytest.mark.parametrize("name", ["length not a multiple of four", "first bits set", "no cookie"])
def test_a_stream_that_lost_its_place_is_given_up(name: str) -> None:
    with pytest.raises(MalformedMessage):
        StreamSplitter().feed(BROKEN[name] + framed(b""))


def test_a_stream_keeps_no_more_than_one_frame() -> None:
    splitter, stream = StreamSplitter(), framed(bytes(0xFFFC)) * 3
    waiting = []
    for at in range(0, len(stream), 999):
        splitter.feed(stream[at : at + 999])
        waiting.append(splitter.pending)
    assert 64_000 < max(waiting) <= 65_555
    assert waiting[-1] == 0


def test_the_first_of_repeated_attributes_counts() -> None:
    client = World().client()
    client.allocate()
    both = ((a.XOR_PEER_ADDRESS, PEER), (a.XOR_PEER_ADDRESS, OTHER_PEER))
    client.permit(PEER)
    client.deliver(client.message(Method.SEND, *both, (a.DATA, b"x"), message_class=Class.INDICATION).encode())
    assert [command.peer for command in client.world.plane.relayed] == [PEER]


def test_padding_is_sent_as_zeros() -> None:
    for size in range(1, 12):
        encoded = Message(Method.DATA, Class.INDICATION, b"\xff" * 12).add(a.DATA, b"\xff" * size).encode()
        assert encoded[24 + size :] == bytes(-size % 4)


# State that strangers can fill


def flood(world: World, method: Method, addresses: int, first: int) -> None:
    client = world.client()
    data = client.message(method, UDP_RELAY).encode()
    for number in range(first, first + addresses):
        host = f"{11 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.1"
        world.receive(data, FiveTuple(Transport.UDP, Address(host, 1000 + number % 60000), SERVER))
        world.clear()
        world.mail.clear()


@pytest.mark.parametrize("method", [Method.ALLOCATE, Method.BINDING, Method.REFRESH])
def test_a_flood_of_spoofed_requests_leaves_memory_flat(method: Method) -> None:
    world = World(limiter=AnswerLimiter(5))
    flood(world, method, 500, 0)
    gc.collect()
    tracemalloc.start()
    try:
        flood(world, method, 3000, 500)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 64 * 1024
    assert len(world.server) == 0
    assert world.server.next_timeout() is None


def test_a_flood_of_made_up_credentials_asks_nobody() -> None:
    world = World()
    client = world.client()
    message = client.message(Method.ALLOCATE, UDP_RELAY, (a.USERNAME, "alice"), (a.REALM, REALM))
    data = message.add(a.NONCE, client.challenge()).encode(key=client.key)
    for number in range(100):
        world.receive(data, FiveTuple(Transport.UDP, Address("203.0.113.5", 1000 + number), SERVER))
    assert not world.of(FindCredential)


def test_one_victim_is_sent_no_flood() -> None:
    world = World(limiter=AnswerLimiter(10))
    for number in range(2000):
        victim = world.client(address=Address("203.0.113.5", 1 + number))
        victim.deliver(victim.message(Method.BINDING if number % 2 else Method.ALLOCATE).encode())
    assert len(world.of(Send)) == 10


def test_a_victim_gets_no_fresh_budget_because_many_others_are_named() -> None:
    limiter = AnswerLimiter(2, slots=1024)
    victim = bytes(4)
    answered = 0
    for number in range(1, 200):
        answered += limiter.allow(victim, 1.0)
        limiter.allow(number.to_bytes(4, "big"), 1.0)
    assert answered == 2


def unauthenticated(client: Client) -> dict[str, Callable[[], bytes]]:
    every = client.message(Method.BINDING)
    for number in range(0x7000, 0x7000 + 100):
        raw(every, number)
    return {
        "Binding": lambda: client.message(Method.BINDING).encode(),
        "Binding with FINGERPRINT": lambda: client.message(Method.BINDING).encode(fingerprint=True),
        "Binding with PADDING": lambda: client.message(Method.BINDING, (a.PADDING, bytes(1000))).encode(),
        "Binding with unknown attributes": every.encode,
        "Allocate": lambda: client.message(Method.ALLOCATE, UDP_RELAY).encode(),
        "Refresh": lambda: client.message(Method.REFRESH).encode(),
        "forged nonce": lambda: client.message(
            Method.REFRESH, (a.USERNAME, "u"), (a.REALM, "r"), (a.NONCE, b"n")
        ).encode(key=b"k"),
    }


@pytest.mark.parametrize("what", unauthenticated(World().client()))
@pytest.mark.parametrize("host", ["198.51.100.7", "2001:db8::7"])
def test_an_answer_is_never_much_larger_than_its_request(what: str, host: str) -> None:
    """On the wire, with IP and UDP headers, less than three and a half times as large."""
    headers = 28 if "." in host else 48
    client = World(ServerConfig(RealmConfig(REALM), other_addresses=FOUR)).client(address=Address(host, 1))
    request = unauthenticated(client)[what]()
    (answer,) = client.deliver(request)
    assert len(answer) + headers < 3.5 * (len(request) + headers)


def test_a_reserved_port_does_not_stay_reserved() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=0)))
    for _ in range(50):
        client = world.client(transport=Transport.TCP)
        client.allocate(PAIR)
        client.disconnect()
    assert len(world.plane.held) == 50
    world.pass_time(30)
    assert not world.plane.held


def test_quotas_hold_after_connections_break() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=2)))
    for _ in range(10):
        clients = [world.client(transport=Transport.TCP) for _ in range(3)]
        assert [code(client.allocate()) for client in clients] == [0, 0, 486]
        for client in clients:
            client.disconnect()
            client.disconnect()
    assert len(world.server) == 0


def test_a_user_cannot_raise_the_quota_by_spelling() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=1)))
    assert code(world.client().allocate()) == 0
    for spelling in ("alice ", " alice", "Alice", "alice\0", "alic\u0435"):
        assert code(world.client(spelling, "wonderland").allocate()) == 401


# Secrets and randomness


def test_nonces_and_tokens_come_from_the_random_source() -> None:
    asked: list[int] = []
    source = Random(7)

    def random(size: int) -> bytes:
        asked.append(size)
        return source.randbytes(size)

    world = World()
    world.server = Server(ServerConfig(RealmConfig(REALM)), random=random, limiter=AnswerLimiter(0))
    assert asked == [32]
    token = world.client().allocate(PAIR).get(a.RESERVATION_TOKEN)
    assert asked == [32, 8]
    again = Random(7)
    again.randbytes(32)
    assert token == again.randbytes(8)


def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compare = hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        sizes.append(len(one))
        return compare(one, other)

    world = World()
    client = world.client()
    client.challenge()
    monkeypatch.setattr(hmac, "compare_digest", watched)
    client.transact(client.sign(client.message(Method.REFRESH)))
    assert sorted(set(sizes)) == [12, 20]


def test_answers_repeat_no_name_and_no_secret() -> None:
    world = World()
    client = world.client()
    good, bad = client.allocate(), world.client("mallory", "hunter2").allocate()
    for answer in (good, bad, client.permit()):
        assert "USERNAME" not in names(answer)
    data = b"".join(send.data for send in world.of(Send))
    for secret in (b"wonderland", b"hunter2", b"mallory", client.key):
        assert secret not in data
    for password in ("wonderland", "hunter2"):
        assert password not in repr(world.commands)


HOSTILE = [
    "%s%n",
    "'; DROP TABLE users; --",
    'a"b',
    "a\r\nX: y",
    "a\0b",
    "<script>",
    "${jndi:ldap://x}",
    "\u202e",
    "a:b:c",
]


@pytest.mark.parametrize("username", HOSTILE)
def test_hostile_names_are_data(username: str) -> None:
    world = World()
    client = world.client(username, "x")
    assert code(client.allocate()) == 401
    (event,) = world.of(AuthenticationFailed)
    assert event == AuthenticationFailed(client.five_tuple, username, "unknown user", REALM)
    assert [lookup.username for lookup in world.of(FindCredential)] == [username]


@pytest.mark.parametrize("realm", HOSTILE)
def test_a_hostile_realm_is_not_repeated(realm: str) -> None:
    client = World().client(realm=realm)
    answer = client.allocate()
    assert code(answer) == 401
    assert answer.get(a.REALM) == REALM


def test_another_clients_allocation_cannot_be_taken_over() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    thief = world.client("bob", address=client.five_tuple.client)
    codes = [code(thief.permit(OTHER_PEER)), code(thief.bind(0x4000, PEER)), code(thief.refresh((a.LIFETIME, 0)))]
    assert codes == [441, 441, 441]
    assert code(thief.allocate()) == 437
    assert code(client.refresh()) == 0
    assert not client.send(OTHER_PEER, b"x")


def test_a_captured_request_is_of_no_use_elsewhere() -> None:
    """A nonce belongs to one client address; on its own five-tuple a replay only does again what was done."""
    world = World()
    client = world.client()
    client.allocate()
    data = client.sign(client.message(Method.CREATE_PERMISSION, (a.XOR_PEER_ADDRESS, PEER)))
    other = world.client()
    assert code(other.transact(data)) == 438
    assert code(client.transact(data)) == 0


# Sizes: what a message can hold is answered


MOST = 16_383
"""Attributes that the 16 bits of a message's length leave room for."""


def many_peers(count: int) -> list[Address]:
    return [Address(f"8.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1) for number in range(count)]


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize(("count", "expected"), [(125, 0), (256, 0), (257, 400), (5_400, 400)])
def test_as_many_peers_as_the_rules_grant_fit_one_request(count: int, expected: int, transport: Transport) -> None:
    world = World()
    client = world.client(transport=transport)
    client.allocate()
    assert code(client.permit(*many_peers(count))) == expected
    assert len(world.plane.sessions[1].permissions) == (count if not expected else 0)


def test_more_than_may_ever_be_is_400_and_more_than_there_is_room_for_now_508() -> None:
    world = World(ServerConfig(RealmConfig(REALM), permissions_per_allocation=3))
    client = world.client()
    client.allocate()
    peers = many_peers(5)
    assert code(client.permit(peers[4])) == 0
    assert code(client.permit(*peers[:3])) == 508
    assert code(client.permit(*peers[:4])) == 400
    assert world.plane.sessions[1].permissions.keys() == {peers[4].host}
    assert code(client.permit(*peers[:2], *peers[:2])) == 0


def test_peers_are_as_many_as_the_operator_grants() -> None:
    client = World(ServerConfig(RealmConfig(REALM), permissions_per_allocation=65_536)).client()
    client.allocate()
    assert code(client.permit(*many_peers(5_400))) == 0


def test_one_host_many_times_is_one_permission() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert code(client.permit(*(Address(PEER.host, port) for port in range(5_000)))) == 0
    assert world.plane.sessions[1].permissions.keys() == {PEER.host}


def test_a_malformed_peer_among_thousands_is_400() -> None:
    client = World().client()
    client.allocate()
    message = client.message(Method.CREATE_PERMISSION, *((a.XOR_PEER_ADDRESS, peer) for peer in many_peers(256)))
    assert code(client.transact(client.sign(raw(message, a.XOR_PEER_ADDRESS.number)))) == 400


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("count", [127, 128, 129, 1_000, 16_000])
def test_many_unknown_attributes_are_420_with_all_of_them(count: int, transport: Transport) -> None:
    client = World().client(transport=transport)
    unknown = [number for number in range(0x7FFF) if number not in a.ATTRIBUTES][:count]
    message = client.message(Method.BINDING)
    for number in (*unknown, unknown[0]):
        raw(message, number)
    answer = client.transact(message.encode())
    assert code(answer) == 420
    assert answer is not None
    assert answer.get(a.UNKNOWN_ATTRIBUTES) == tuple(unknown)


@pytest.mark.parametrize("method", [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
@pytest.mark.parametrize("number", [0x7FFF, a.SOFTWARE.number, a.XOR_PEER_ADDRESS.number, a.USERNAME.number])
def test_a_request_full_of_attributes_is_answered(method: Method, number: int) -> None:
    client = World().client()
    client.allocate()
    message = client.message(method)
    for _ in range(MOST):
        raw(message, number)
    assert code(client.transact(message.encode())) == 401
    message = client.message(method, UDP_RELAY)
    for _ in range(MOST - 100):
        raw(message, number)
    assert code(client.transact(client.sign(message))) in {0, 400, 401, 420, 437}


def test_a_binding_request_full_of_attributes_is_answered() -> None:
    client = World().client()
    message = client.message(Method.BINDING)
    for _ in range(MOST):
        raw(message, a.SOFTWARE.number)
    assert code(client.transact(message.encode())) == 0
