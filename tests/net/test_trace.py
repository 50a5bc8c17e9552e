"""A trace by itself: hostile bytes in words and without secrets, and its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.net.tracing import trace as tracing
from turnsvr.net.tracing.decode import decode, masked
from turnsvr.net.tracing.trace import Trace, TracedMessage, Wanted
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import Class, Message, Method

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2VjcmV0LXNpZ25hdHVyZQ"


def at(port: int) -> FiveTuple:
    return FiveTuple(Transport.TCP, Address("203.0.113.9", port), Address("198.51.100.1", 3478))


def request(method: int = Method.ALLOCATE, transaction: int = 1) -> Message:
    return Message(method, Class.REQUEST, transaction.to_bytes(12, "big"))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    decode(data)
    copy = masked(data)
    assert len(copy) == len(data)
    assert decode(copy).method == decode(data).method or not data


@given(st.binary(max_size=120), st.sampled_from([0x0001, 0x0003, 0x0101, 0x0113]))
def test_any_attributes(body: bytes, kind: int) -> None:
    size = len(body) & ~3
    data = kind.to_bytes(2, "big") + size.to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + body[:size]
    decode(data)
    assert masked(masked(data)) == masked(data)


def test_secrets_are_zeros_and_the_fingerprint_is_right() -> None:
    message = (
        request()
        .add(a.USERNAME, TOKEN)
        .add(a.ACCESS_TOKEN, b"access token")
        .add(a.MOBILITY_TICKET, b"mobility ticket!")
        .add(a.RESERVATION_TOKEN, b"reserved")
        .add(a.DATA, b"application data")
    )
    data = message.encode(key=b"k" * 16, sha256_key=b"s" * 32, fingerprint=True)
    copy = masked(data)
    for secret in (TOKEN.encode(), b"access token", b"mobility ticket!", b"reserved", b"application data"):
        assert secret in data
        assert secret not in copy
    assert not Message.parse(copy).integrity_ok(b"k" * 16)
    assert b"application data" in masked(data, keeps_data=True)
    words = decode(data)
    assert TOKEN not in str(words)
    assert ("USERNAME", decode(data).attributes[0][1]) == words.attributes[0]
    assert dict(words.attributes)["ACCESS-TOKEN"] == "12 bytes, not shown"


def test_values_in_words() -> None:
    response = request().reply(Class.ERROR).add(a.ERROR_CODE, a.Error(420, "Unknown Attribute"))
    response.add(a.UNKNOWN_ATTRIBUTES, (a.ACCESS_TOKEN.number, 0x7FFF)).add(a.LIFETIME, 600)
    decoded = decode(response.encode())
    assert (decoded.method, decoded.kind, decoded.problem) == ("Allocate", "error", "")
    assert decoded.attributes == (
        ("ERROR-CODE", "420 Unknown Attribute"),
        ("UNKNOWN-ATTRIBUTES", "ACCESS-TOKEN, 0x7fff"),
        ("LIFETIME", "600 s"),
    )
    assert decode(b"\x40\x00\x00\x05hello").attributes[0] == ("CHANNEL-NUMBER", "0x4000")
    assert decode(response.encode()[:-2]).problem


def test_what_finds_no_room_is_counted() -> None:
    trace = Trace(Wanted(client=("203.0.113.9", None)))
    for number in range(tracing.MAX_EVENTS + 5):
        trace.received(1.0, at(1), request(transaction=number).encode(), None)
    events, left_out = trace.pop_events()
    assert (len(events), left_out) == (tracing.MAX_EVENTS, 5)
    assert trace.pop_events() == ([], 0)


def test_large_ones_are_counted_too() -> None:
    trace = Trace(Wanted(client=("203.0.113.9", None)))
    large = request().add(a.DATA, bytes(60_000)).encode()
    for _ in range(100):
        trace.received(1.0, at(1), large, None)
    events, left_out = trace.pop_events()
    assert len(events) == tracing.MAX_BYTES // len(large)
    assert left_out == 100 - len(events)


def test_strangers_are_remembered_within_bounds() -> None:
    """A flood of strangers takes no memory, and whoever turns out to be the user is shown from the beginning."""
    trace = Trace(Wanted(user="alice"))
    for port in range(1, 2_000):
        trace.received(1.0, at(port), request(transaction=port).encode(), None)
    for port in (1_999, 1):
        trace.received(2.0, at(port), request(transaction=7).add(a.USERNAME, "alice").encode(), None)
    events, left_out = trace.pop_events()
    ports = [each.five_tuple.client.port for each in events if isinstance(each, TracedMessage)]
    assert ports == [1_999, 1_999, 1]
    assert left_out == 0


def test_the_names_of_a_user() -> None:
    for name, theirs in {
        "alice": True,
        "2000000000:alice": True,
        "alice:2000000000": True,
        "malice": False,
        "alice2": False,
        "12alice": False,
        "x:alice": False,
    }.items():
        trace = Trace(Wanted(user="alice"))
        trace.received(1.0, at(1), request().add(a.USERNAME, name).encode(), None)
        assert bool(trace.pop_events()[0]) == theirs, name
