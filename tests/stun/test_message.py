"""Messages: round trips, everything that may be wrong with them, and what follows an integrity attribute."""

from __future__ import annotations

import dataclasses
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.stun import integrity
from turnsvr.stun.address import Address, Family, unpack_host
from turnsvr.stun.attributes import (
    ADDRESS_ERROR_CODE,
    ATTRIBUTES,
    CHANNEL_NUMBER,
    DATA,
    ERROR_CODE,
    EVEN_PORT,
    FINGERPRINT,
    ICMP,
    LIFETIME,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    REQUESTED_TRANSPORT,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    AddressError,
    Attribute,
    Error,
    EvenPort,
    Icmp,
    PasswordAlgorithm,
)
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.message import COOKIE_BYTES, Class, Message, Method, is_stun

hosts = (st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)).map(unpack_host)
addresses = st.builds(Address, hosts, st.integers(0, 0xFFFF))
errors = st.integers(300, 699)
short_text = st.text(max_size=60).filter(lambda text: "\0" not in text)

SPECIAL: dict[Attribute[Any], st.SearchStrategy[Any]] = {
    ERROR_CODE: st.builds(Error, errors, short_text),
    ADDRESS_ERROR_CODE: st.builds(AddressError, st.sampled_from(Family), errors, short_text),
    UNKNOWN_ATTRIBUTES: st.lists(st.integers(0, 0xFFFF), max_size=9).map(tuple),
    EVEN_PORT: st.booleans().map(EvenPort),
    ICMP: st.builds(Icmp, st.integers(0, 127), st.integers(0, 511), st.binary(min_size=4, max_size=4)),
    PASSWORD_ALGORITHM: st.builds(PasswordAlgorithm, st.integers(0, 0xFFFF), st.binary(max_size=9)),
    PASSWORD_ALGORITHMS: st.lists(
        st.builds(PasswordAlgorithm, st.integers(0, 0xFFFF), st.binary(max_size=9)), max_size=4
    ).map(tuple),
}
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "MESSAGE-INTEGRITY": st.binary(min_size=20, max_size=20),
    "MESSAGE-INTEGRITY-SHA256": st.binary(max_size=32),
    "USERHASH": st.binary(min_size=32, max_size=32),
    "RESERVATION-TOKEN": st.binary(min_size=8, max_size=8),
    "CHANNEL-NUMBER": st.integers(0, 0xFFFF),
    "RESPONSE-PORT": st.integers(0, 0xFFFF),
    "LIFETIME": st.integers(0, 0xFFFFFFFF),
    "CONNECTION-ID": st.integers(0, 0xFFFFFFFF),
    "FINGERPRINT": st.integers(0, 0xFFFFFFFF),
    "CHANGE-REQUEST": st.integers(0, 0xFFFFFFFF),
    "PRIORITY": st.integers(0, 0xFFFFFFFF),
    "ICE-CONTROLLED": st.integers(0, 2**64 - 1),
    "ICE-CONTROLLING": st.integers(0, 2**64 - 1),
    "REQUESTED-TRANSPORT": st.integers(0, 255),
    "REQUESTED-ADDRESS-FAMILY": st.integers(0, 255),
    "ADDITIONAL-ADDRESS-FAMILY": st.integers(0, 255),
    "DONT-FRAGMENT": st.just(True),
    "USE-CANDIDATE": st.just(True),
    "DATA": st.binary(max_size=300),
    "PADDING": st.binary(max_size=300),
    "NONCE": st.binary(max_size=128),
    "ACCESS-TOKEN": st.binary(max_size=200),
    "MOBILITY-TICKET": st.binary(max_size=200),
}


def values_of(attribute: Attribute[Any]) -> st.SearchStrategy[Any]:
    """Values that an attribute can carry."""
    if attribute in SPECIAL:
        return SPECIAL[attribute]
    name = attribute.name.partition(" ")[0]
    if name in BY_NAME:
        return BY_NAME[name]
    if name in ("USERNAME", "REALM", "SOFTWARE", "ALTERNATE-DOMAIN", "ORIGIN", "THIRD-PARTY-AUTHORIZATION"):
        return short_text
    return addresses


class TestRoundTrips:
    @given(st.data())
    @pytest.mark.parametrize("attribute", ATTRIBUTES.values(), ids=repr)
    def test_every_attribute(self, attribute: Attribute[Any], data: st.DataObject) -> None:
        value = data.draw(values_of(attribute))
        mask = data.draw(st.binary(min_size=16, max_size=16))
        assert attribute.unpack(attribute.pack(value, mask), mask) == value

    @given(
        st.integers(0, 0xFFF),
        st.sampled_from(Class),
        st.binary(min_size=12, max_size=12),
        st.lists(
            st.sampled_from([a for a in ATTRIBUTES.values() if "INTEGRITY" not in a.name and a is not FINGERPRINT]),
            max_size=8,
        ),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.data(),
    )
    def test_every_message(
        self,
        method: int,
        message_class: Class,
        transaction_id: bytes,
        attributes: list[Attribute[Any]],
        sha1: bool,
        sha256: bool,
        fingerprint: bool,
        data: st.DataObject,
    ) -> None:
        message = Message(method, message_class, transaction_id)
        values = [data.draw(values_of(attribute)) for attribute in attributes]
        for attribute, value in zip(attributes, values, strict=True):
            message.add(attribute, value)
        encoded = message.encode(
            key=b"one key" if sha1 else None, sha256_key=b"another" if sha256 else None, fingerprint=fingerprint
        )
        parsed = Message.parse(encoded)
        assert is_stun(encoded)
        assert len(encoded) % 4 == 0
        assert (parsed.method, parsed.message_class, parsed.transaction_id) == (method, message_class, transaction_id)
        for attribute in attributes:
            expected = [value for a, value in zip(attributes, values, strict=True) if a is attribute]
            assert parsed.get(attribute) == expected[0]
            assert list(parsed.all(attribute)) == expected
            assert attribute in parsed
        assert parsed.integrity_ok(b"one key") is sha1
        assert parsed.integrity_sha256_ok(b"another") is sha256
        assert not parsed.integrity_ok(b"wrong")
        assert not parsed.integrity_sha256_ok(b"wrong")
        assert (FINGERPRINT in parsed) is fingerprint
        tail = [MESSAGE_INTEGRITY] * sha1 + [MESSAGE_INTEGRITY_SHA256] * sha256 + [FINGERPRINT] * fingerprint
        assert parsed.numbers() == [attribute.number for attribute in (*attributes, *tail)]

    def test_padding_is_zeros(self) -> None:
        encoded = Message(Method.BINDING, Class.REQUEST, bytes(12)).add(SOFTWARE, "abcde").encode()
        assert encoded[20:] == b"\x80\x22\x00\x05abcde\0\0\0"

    def test_a_reply_is_empty_and_of_the_same_transaction(self) -> None:
        request = Message(Method.ALLOCATE, Class.REQUEST, b"transaction!").add(USERNAME, "user")
        reply = request.reply(Class.ERROR).add(ERROR_CODE, Error.of(ErrorCode.ALLOCATION_MISMATCH))
        parsed = Message.parse(reply.encode())
        assert (parsed.method, parsed.message_class) == (Method.ALLOCATE, Class.ERROR)
        assert parsed.transaction_id == b"transaction!"
        assert parsed.get(ERROR_CODE) == (437, "Allocation Mismatch")
        assert parsed.numbers() == [ERROR_CODE.number]

    def test_unknown_required_attributes_are_listed_once(self) -> None:
        body = b"".join(
            number.to_bytes(2, "big") + b"\0\0" for number in (0x7777, 0xC000, 0x0024, 0x7777, 0x0002, 0x8022)
        )
        message = Message.parse(_raw(body))
        assert message.unknown_required() == (0x7777, 0x0002)
        assert "0x7777" in repr(message)

    def test_what_is_not_there_is_none(self) -> None:
        message = Message(Method.BINDING, Class.REQUEST, bytes(12))
        assert message.get(SOFTWARE) is None
        assert list(message.all(SOFTWARE)) == []
        assert SOFTWARE not in message
        assert not message.integrity_ok(b"key")
        assert not message.integrity_sha256_ok(b"key")


class TestClassic:
    """RFC 3489: sixteen bytes of transaction id and no cookie."""

    DATA = b"\x00\x01\x00\x00" + bytes(range(16))

    def test_only_when_admitted(self) -> None:
        with pytest.raises(MalformedMessage, match="cookie"):
            Message.parse(self.DATA)
        message = Message.parse(self.DATA, classic=True)
        assert message.is_classic
        assert message.transaction_id == bytes(range(16))
        assert Message.parse(message.reply(Class.SUCCESS).encode(), classic=True).transaction_id == bytes(range(16))

    def test_a_cookie_makes_it_modern(self) -> None:
        assert not Message.parse(_raw(b""), classic=True).is_classic


@dataclasses.dataclass(frozen=True)
class Broken:
    what: str
    data: bytes


HEADER = b"\x00\x01\x00\x00" + COOKIE_BYTES + bytes(12)
GOOD = Message(Method.BINDING, Class.REQUEST, bytes(12)).add(SOFTWARE, "abcd").encode(fingerprint=True)


def _raw(body: bytes, length: int | None = None) -> bytes:
    return b"\x00\x01" + (len(body) if length is None else length).to_bytes(2, "big") + HEADER[4:] + body


BROKEN = [
    Broken("nothing", b""),
    Broken("a cut header", HEADER[:19]),
    Broken("first two bits", b"\x40" + HEADER[1:]),
    Broken("first bit", b"\x80" + HEADER[1:]),
    Broken("another cookie", HEADER[:7] + b"\0" + HEADER[8:]),
    Broken("trailing data", HEADER + bytes(4)),
    Broken("too short for its length", _raw(b"", 4)),
    Broken("length 0xFFFF", _raw(b"", 0xFFFF)),
    Broken("length not a multiple of four", _raw(b"\0" * 6)),
    Broken("an attribute past the end", _raw(b"\x80\x22\x00\x05abcd")),
    Broken("an attribute of 65,535 bytes", _raw(b"\x80\x22\xff\xffabcd")),
    Broken("wrong fingerprint", GOOD[:-1] + bytes((GOOD[-1] ^ 1,))),
    Broken("fingerprint of another size", _raw(b"\x80\x28\x00\x08" + bytes(8))),
    Broken("fingerprint that is not last", _raw(GOOD[20:] + b"\x80\x22\x00\x00")),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.what)
def test_malformed_messages(broken: Broken) -> None:
    with pytest.raises(MalformedMessage):
        Message.parse(broken.data)


BAD_VALUES = [
    (XOR_MAPPED_ADDRESS, b""),
    (XOR_MAPPED_ADDRESS, b"\0\1\0\0abc"),
    (XOR_MAPPED_ADDRESS, b"\0\1\0\0abcde"),
    (XOR_MAPPED_ADDRESS, b"\0\2\0\0abcd"),
    (XOR_MAPPED_ADDRESS, b"\0\3\0\0abcd"),
    (XOR_PEER_ADDRESS, b"\0\1\0\0" + bytes(16)),
    (USERNAME, b"\xff"),
    (USERNAME, b"u" * 514),
    (REALM, b"\xc3"),
    (REALM, b"r" * 764),
    (NONCE, b"n" * 764),
    (ERROR_CODE, b"\0\0\4"),
    (UNKNOWN_ATTRIBUTES, b"abc"),
    (LIFETIME, b"abc"),
    (LIFETIME, b"abcde"),
    (CHANNEL_NUMBER, b"ab"),
    (EVEN_PORT, b""),
    (EVEN_PORT, b"abcd"),
    (REQUESTED_TRANSPORT, b"\x11"),
    (ICMP, bytes(7)),
    (ADDRESS_ERROR_CODE, b"\7\0\4\0"),
    (PASSWORD_ALGORITHM, b""),
    (PASSWORD_ALGORITHM, b"\0\1\0"),
    (PASSWORD_ALGORITHM, b"\0\1\0\0\0\2\0\0"),
    (PASSWORD_ALGORITHMS, b"\0\1\0\5abcd"),
]


@pytest.mark.parametrize(("attribute", "value"), BAD_VALUES, ids=lambda value: repr(value)[:30])
def test_malformed_values_are_noticed_when_asked_for(attribute: Attribute[Any], value: bytes) -> None:
    body = attribute.number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    message = Message.parse(_raw(body))
    with pytest.raises(MalformedMessage):
        message.get(attribute)
    with pytest.raises(MalformedMessage):
        list(message.all(attribute))


class TestAfterIntegrity:
    """RFC 8489 sections 14.5 to 14.7: what follows an integrity attribute is not protected and counts for nothing."""

    KEY = b"key"

    def _extended(self, extra: bytes, *, key: bytes | None = None, sha256_key: bytes | None = None) -> Message:
        message = Message(Method.ALLOCATE, Class.REQUEST, bytes(12)).add(USERNAME, "user")
        data = message.encode(key=key, sha256_key=sha256_key) + extra
        return Message.parse(data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:])

    def test_others_are_ignored(self) -> None:
        message = self._extended(b"\x00\x0d\x00\x04\0\0\0\1", key=self.KEY)
        assert message.integrity_ok(self.KEY)
        assert LIFETIME not in message

    def test_sha256_counts_after_sha1(self) -> None:
        message = self._extended(b"\x00\x0d\x00\x04\0\0\0\1", key=self.KEY, sha256_key=self.KEY)
        assert message.integrity_ok(self.KEY)
        assert message.integrity_sha256_ok(self.KEY)
        assert LIFETIME not in message

    def test_sha1_does_not_count_after_sha256(self) -> None:
        message = self._extended(b"\x00\x08\x00\x14" + bytes(20), sha256_key=self.KEY)
        assert MESSAGE_INTEGRITY not in message
        assert message.integrity_sha256_ok(self.KEY)

    def test_a_second_of_the_same_does_not_count(self) -> None:
        message = self._extended(b"\x00\x08\x00\x14" + bytes(20), key=self.KEY)
        assert message.integrity_ok(self.KEY)
        assert message.numbers() == [USERNAME.number, MESSAGE_INTEGRITY.number]

    def test_unknown_required_ones_are_ignored(self) -> None:
        assert self._extended(b"\x77\x77\x00\x00", key=self.KEY).unknown_required() == ()


@pytest.mark.parametrize("size", range(0, 40, 4))
def test_sha256_may_be_cut(size: int) -> None:
    """To 16 bytes at least (RFC 8489 section 14.6); the digest covers the length that it then has."""
    plain = Message(Method.BINDING, Class.REQUEST, bytes(12)).add(SOFTWARE, "abcd").encode()
    covered = plain[:2] + (len(plain) - 20 + 4 + size).to_bytes(2, "big") + plain[4:]
    digest = hmac.digest(b"key", covered, "sha256")[:size]
    data = covered + b"\x00\x1c" + size.to_bytes(2, "big") + digest.ljust(size, b"\0")
    assert integrity.check_sha256(b"key", data, len(plain)) is (16 <= size <= 32)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_message_or_malformed(data: bytes, classic: bool) -> None:
    _read_all(data, classic)


@given(st.binary(max_size=200).map(lambda body: _raw(body + bytes(-len(body) % 4))))
def test_any_body_is_a_message_or_malformed(data: bytes) -> None:
    _read_all(data, False)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(ATTRIBUTES)), st.binary(max_size=40)).filter(lambda a: a[0] != 0x8028),
        max_size=10,
    )
)
def test_any_value_of_any_attribute_is_read_or_malformed(attributes: list[tuple[int, bytes]]) -> None:
    body = b"".join(
        number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    _read_all(_raw(body), False)


def _read_all(data: bytes, classic: bool) -> None:
    """Ask for everything; MalformedMessage is the only error."""
    try:
        message = Message.parse(data, classic=classic)
    except MalformedMessage:
        return
    repr(message)
    message.unknown_required()
    message.integrity_ok(b"key")
    message.integrity_sha256_ok(b"key")
    for attribute in ATTRIBUTES.values():
        try:
            list(message.all(attribute))
        except MalformedMessage:
            continue


def test_the_longest_data() -> None:
    message = Message(Method.DATA, Class.INDICATION, bytes(12)).add(DATA, bytes(65_528))
    assert Message.parse(message.encode()).get(DATA) == bytes(65_528)
