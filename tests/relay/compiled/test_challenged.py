"""A challenge of the pump is byte for byte the one of the rules, and whatever else they would do goes up to them."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnsvr.limits import AnswerLimiter
from turnsvr.plane import Challenge
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import COOKIE_BYTES
from turnsvr.turn.commands import Send
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.server import Server

Answering = Callable[[Challenge, Address, float, bytes], bytes | None]
challenge_to: Answering = pytest.importorskip(
    "turnsvr.relay.compiled._pump", reason="the compiled pump was not built"
).challenge_to

LISTENER = Address("192.0.2.1", 3478)
CLIENT = Address("198.51.100.7", 50_000)
ALLOCATE = 0x0003
CONFIG = ServerConfig(RealmConfig("example.org"))

BY_CREDENTIALS = [each.number for each in (a.MESSAGE_INTEGRITY, a.MESSAGE_INTEGRITY_SHA256, a.REALM, a.ORIGIN)]
HARMLESS = [
    each.number
    for each in (a.REQUESTED_TRANSPORT, a.LIFETIME, a.SOFTWARE, a.EVEN_PORT, a.USERNAME, a.NONCE, a.DONT_FRAGMENT)
]


def server_of(config: ServerConfig) -> Server:
    return Server(config, random=lambda size: bytes(range(size)), limiter=AnswerLimiter(0))


def attribute(number: int, value: bytes, claimed: int | None = None) -> bytes:
    size = len(value) if claimed is None else claimed
    return number.to_bytes(2, "big") + size.to_bytes(2, "big") + value + bytes(-len(value) % 4)


def with_fingerprint(head: bytes, body: bytes, error: int) -> bytes:
    before = head + (len(body) + 8).to_bytes(2, "big") + COOKIE_BYTES + bytes(range(12)) + body
    return before + attribute(a.FINGERPRINT.number, (crc32(before) ^ 0x5354554E ^ error).to_bytes(4, "big"))


def without_fingerprint(head: bytes, body: bytes, cookie: bytes) -> bytes:
    return head + len(body).to_bytes(2, "big") + cookie + bytes(range(12)) + body


numbers = st.sampled_from(HARMLESS) | st.sampled_from([*BY_CREDENTIALS, a.FINGERPRINT.number]) | st.integers(0, 0xFFFF)
attributes = st.builds(attribute, st.sampled_from(HARMLESS) | numbers, st.binary(max_size=40))
wrong = st.builds(attribute, numbers, st.binary(max_size=8), st.integers(0, 0xFFFF))
bodies = st.lists(attributes, max_size=6).map(b"".join) | st.lists(attributes | wrong, max_size=4).map(b"".join)
heads = st.just(ALLOCATE.to_bytes(2, "big")) | st.sampled_from([1, 4, 8, 0x13, 0x103, 0x4003]).map(
    lambda kind: kind.to_bytes(2, "big")
)
messages = st.builds(with_fingerprint, heads, bodies, st.just(0) | st.integers(0, 0xFFFFFFFF)) | st.builds(
    without_fingerprint, heads, bodies, st.just(COOKIE_BYTES) | st.binary(min_size=4, max_size=4)
)


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    """Messages, some cut short, longer than they say, or with a byte changed."""
    message = draw(messages)
    match draw(st.sampled_from(["whole", "whole", "cut", "longer", "changed"])):
        case "cut":
            return message[: draw(st.integers(0, len(message)))]
        case "longer":
            return message + draw(st.binary(min_size=1, max_size=8))
        case "changed":
            at = draw(st.integers(0, len(message) - 1))
            return message[:at] + bytes((draw(st.integers(0, 255)),)) + message[at + 1 :]
    return message


hosts = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["::ffff:192.0.2.7", "::", "::1", "2001:db8::1", "fe80::1%1", "255.255.255.255"]),
)
clients = st.builds(Address, hosts, st.integers(0, 65_535))
configs = st.builds(
    ServerConfig,
    st.builds(RealmConfig, st.text(st.characters(codec="utf-8"), min_size=1, max_size=190)),
    nonce_lifetime=st.floats(1.0, 86_400.0),
    anonymity=st.booleans(),
    md5_first=st.booleans(),
    software=st.none() | st.just("turnsvr"),
    rfc3489=st.booleans(),
)


def answer_of_rules(server: Server, client: Address, now: float, data: bytes) -> list[bytes]:
    server.receive(data, FiveTuple(Transport.UDP, client, LISTENER), now)
    return [command.data for command in server.commands() if isinstance(command, Send)]


@given(config=configs, client=clients, now=st.floats(0.0, 1e8), data=datagrams())
@example(CONFIG, CLIENT, 0.0, with_fingerprint(b"\0\3", b"", 0))
@example(CONFIG, CLIENT, 0.999999999, with_fingerprint(b"\0\3", b"", 1))
@example(ServerConfig(RealmConfig("r" * 763)), CLIENT, 5.0, with_fingerprint(b"\0\3", b"", 0))
def test_as_the_rules_answer(config: ServerConfig, client: Address, now: float, data: bytes) -> None:
    server = server_of(config)
    challenge = server.challenge(LISTENER)
    assert challenge is not None
    answer = challenge_to(challenge, client, now, data)
    expected = answer_of_rules(server, client, now, data)
    assert answer is None or [answer] == expected


@given(body=st.lists(st.builds(attribute, st.sampled_from(HARMLESS), st.binary(max_size=40)), max_size=8).map(b"".join))
def test_whatever_a_first_request_has_it_is_answered(body: bytes) -> None:
    challenge = server_of(CONFIG).challenge(LISTENER)
    assert challenge is not None
    for message in (with_fingerprint(b"\0\3", body, 0), without_fingerprint(b"\0\3", body, COOKIE_BYTES)):
        assert challenge_to(challenge, CLIENT, 1000.0, message) is not None


@pytest.mark.parametrize("number", BY_CREDENTIALS)
def test_who_claims_to_be_somebody_goes_up(number: int) -> None:
    challenge = server_of(CONFIG).challenge(LISTENER)
    assert challenge is not None
    for body in (attribute(number, bytes(20)), attribute(0x19, bytes(4)) + attribute(number, b"")):
        assert challenge_to(challenge, CLIENT, 1000.0, with_fingerprint(b"\0\3", body, 0)) is None
        assert challenge_to(challenge, CLIENT, 1000.0, without_fingerprint(b"\0\3", body, COOKIE_BYTES)) is None


@pytest.mark.parametrize(("count", "answered"), [(128, True), (129, False)])
def test_more_attributes_than_any_client_sends_go_up(count: int, answered: bool) -> None:
    server = server_of(CONFIG)
    challenge = server.challenge(LISTENER)
    assert challenge is not None
    data = with_fingerprint(b"\0\3", attribute(0x8022, b"x") * count, 0)
    assert (challenge_to(challenge, CLIENT, 1.0, data) is not None) is answered
    assert answer_of_rules(server, CLIENT, 1.0, data)


def test_a_challenge_that_is_too_large_for_the_pump_goes_up() -> None:
    challenge = server_of(ServerConfig(RealmConfig("r" * 2000))).challenge(LISTENER)
    assert challenge is not None
    assert challenge_to(challenge, CLIENT, 1.0, without_fingerprint(b"\0\3", b"", COOKIE_BYTES)) is None
