"""The fast readers and writers agree with the codec."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnsvr.relay.portable.messages import (
    TransactionIds,
    binding_success,
    data_indication,
    is_possible_message,
    parse_send_indication,
)
from turnsvr.stun.address import Address, unpack_host
from turnsvr.stun.attributes import (
    DATA,
    DONT_FRAGMENT,
    FINGERPRINT,
    MAPPED_ADDRESS,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
)
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Class, Message, Method

hosts = (st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)).map(unpack_host)
addresses = st.builds(Address, hosts, st.integers(0, 0xFFFF))
transaction_ids = st.binary(min_size=12, max_size=12)

V6 = Address("2001:db8::1", 9)


@given(transaction_ids, addresses, st.binary(max_size=3000))
def test_a_data_indication_is_what_the_codec_writes(transaction_id: bytes, peer: Address, data: bytes) -> None:
    message = Message(Method.DATA, Class.INDICATION, transaction_id).add(XOR_PEER_ADDRESS, peer).add(DATA, data)
    assert data_indication(transaction_id, peer, data) == message.encode()


def test_the_longest_data_indication() -> None:
    message = Message.parse(data_indication(bytes(12), V6, bytes(65_504)))
    assert message.get(DATA) == bytes(65_504)
    with pytest.raises(ValueError, match="65505 bytes are too many"):
        data_indication(bytes(12), V6, bytes(65_505))


@given(transaction_ids, addresses, st.booleans(), st.booleans())
def test_a_binding_answer_is_what_the_codec_writes(
    transaction_id: bytes, client: Address, mapped: bool, suffix: bool
) -> None:
    request = Message(Method.BINDING, Class.REQUEST, transaction_id)
    answer = request.reply(Class.SUCCESS).add(XOR_MAPPED_ADDRESS, client)
    if mapped:
        answer.add(MAPPED_ADDRESS, client)
    if suffix:
        answer.add(SOFTWARE, "odd")
    tail = b"\x80\x22\x00\x03odd\x00" if suffix else b""
    assert binding_success(request.encode(), client, mapped, tail) == answer.encode()


@given(transaction_ids, addresses, st.binary(max_size=3000), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_plain_send_indication_is_read(
    transaction_id: bytes,
    peer: Address,
    data: bytes,
    dont_fragment: bool,
    software: bool,
    data_first: bool,
    fingerprint: bool,
) -> None:
    message = Message(Method.SEND, Class.INDICATION, transaction_id)
    if software:
        message.add(SOFTWARE, "software")
    if data_first:
        message.add(DATA, data).add(XOR_PEER_ADDRESS, peer)
    else:
        message.add(XOR_PEER_ADDRESS, peer).add(DATA, data)
    if dont_fragment:
        message.add(DONT_FRAGMENT, True)
    assert parse_send_indication(message.encode(fingerprint=fingerprint)) == (peer, data, dont_fragment)


_PLAIN = Message(Method.SEND, Class.INDICATION, bytes(12)).add(XOR_PEER_ADDRESS, V6).add(DATA, b"abc").encode()


@given(st.lists(st.tuples(st.integers(0, len(_PLAIN) - 1), st.integers(0, 255)), max_size=4))
@example([(3, 0)])
def test_what_is_read_is_what_the_codec_reads(changes: list[tuple[int, int]]) -> None:
    changed = bytearray(_PLAIN)
    for at, value in changes:
        changed[at] = value
    data = bytes(changed)
    plain = parse_send_indication(data) if is_possible_message(data) else None
    if plain is None:
        return
    message = Message.parse(b"\x00\x16" + data[2:])
    assert message.get(XOR_PEER_ADDRESS) == plain.peer
    assert message.get(DATA) == plain.data
    assert (DONT_FRAGMENT in message) == plain.dont_fragment


_MARKED = Message.parse(_PLAIN).encode(fingerprint=True)


@given(st.integers(0, 8 * len(_MARKED) - 1))
def test_a_wrong_fingerprint_is_left_to_the_rules(bit: int) -> None:
    changed = bytearray(_MARKED)
    changed[bit // 8] ^= 1 << bit % 8
    plain = parse_send_indication(bytes(changed))
    if plain is not None:  # DATA has become so long that there is no FINGERPRINT any more
        assert FINGERPRINT not in Message.parse(bytes(changed))


@given(st.binary(max_size=60))
def test_any_body_is_read_or_left_to_the_rules(body: bytes) -> None:
    data = b"\x00\x16" + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + body
    plain = parse_send_indication(data)
    try:
        message = Message.parse(data)
    except MalformedMessage:
        assert plain is None
        return
    if plain is not None:
        assert message.get(DATA) == plain.data


def test_transaction_ids_come_from_the_source_and_never_end() -> None:
    asked: list[int] = []

    def randbytes(size: int) -> bytes:
        asked.append(size)
        return bytes((len(asked) + at // 12) % 251 for at in range(size))

    ids = TransactionIds(randbytes)
    drawn = [next(ids) for _ in range(1000)]
    assert {len(each) for each in drawn} == {12}
    assert sum(asked) >= 12_000
