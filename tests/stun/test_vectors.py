"""The test vectors of RFC 5769 and RFC 8489 appendix B: read, checked, and written again byte for byte."""

from __future__ import annotations

import pytest

from turnsvr.stun.address import Address
from turnsvr.stun.attributes import (
    ICE_CONTROLLED,
    NONCE,
    PASSWORD_ALGORITHM,
    PRIORITY,
    REALM,
    SOFTWARE,
    USERHASH,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    PasswordAlgorithm,
)
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256, userhash
from turnsvr.stun.message import Class, Message, Method

SHORT_TERM_PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")

MATRIX = "マトリックス"
MATRIX_PASSWORD = "TheMatrIX"
LONG_TERM_TRANSACTION = bytes.fromhex("78ad3433c6ad72c029da412e")

# RFC 5769 section 2.1; the user name is padded with spaces.
REQUEST = bytes.fromhex(
    "00010058 2112a442 b7e7a701 bc34d686 fa87dfae"
    "80220010 5354554e 20746573 7420636c 69656e74"
    "00240004 6e0001ff"
    "80290008 932ff9b1 51263b36"
    "00060009 6576746a 3a683676 59202020"
    "00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2"
    "80280004 e57a3bcf"
)

# RFC 5769 sections 2.2 and 2.3; SOFTWARE is padded with a space.
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae"
    "8022000b 74657374 20766563 746f7220"
    "00200008 0001a147 e112a643"
    "00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7"
    "80280004 c07d4c96"
)
RESPONSE_IPV6 = bytes.fromhex(
    "01010048 2112a442 b7e7a701 bc34d686 fa87dfae"
    "8022000b 74657374 20766563 746f7220"
    "00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"
    "00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41"
    "80280004 c8fb0b4c"
)

# RFC 5769 section 2.4.
LONG_TERM_REQUEST = bytes.fromhex(
    "00010060 2112a442 78ad3433 c6ad72c0 29da412e"
    "00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000"
    "0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341"
    "0014000b 6578616d 706c652e 6f726700"
    "00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666"
)

# RFC 8489 section B.1 as its verified erratum 6268 corrects it: with PASSWORD-ALGORITHM.
SHA256_REQUEST = bytes.fromhex(
    "00010090 2112a442 78ad3433 c6ad72c0 29da412e"
    "001e0020 4a3cf38f ef6992bd a952c678 0417da0f 24819415 569e60b2 05c46e41 407f1704"
    "00150029 6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33 346f4c39 46535476 79363473 41000000"
    "0014000b 6578616d 706c652e 6f726700"
    "001d0004 00020000"
    "001c0020 b5c7bf00 5b6c52a2 1c51c5e8 92f81924 136296cb 927c4314 9309278c c6518e65"
)


def test_short_term_request() -> None:
    message = Message.parse(REQUEST)
    assert (message.method, message.message_class) == (Method.BINDING, Class.REQUEST)
    assert message.transaction_id == TRANSACTION
    assert message.get(SOFTWARE) == "STUN test client"
    assert message.get(PRIORITY) == 0x6E0001FF
    assert message.get(ICE_CONTROLLED) == 0x932FF9B151263B36
    assert message.get(USERNAME) == "evtj:h6vY"
    assert message.integrity_ok(SHORT_TERM_PASSWORD)
    assert not message.integrity_ok(SHORT_TERM_PASSWORD + b"x")


@pytest.mark.parametrize(
    ("response", "mapped"),
    [
        (RESPONSE_IPV4, Address("192.0.2.1", 32853)),
        (RESPONSE_IPV6, Address("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
    ids=["IPv4", "IPv6"],
)
def test_response(response: bytes, mapped: Address) -> None:
    message = Message.parse(response)
    assert (message.method, message.message_class) == (Method.BINDING, Class.SUCCESS)
    assert message.get(SOFTWARE) == "test vector"
    assert message.get(XOR_MAPPED_ADDRESS) == mapped
    assert message.integrity_ok(SHORT_TERM_PASSWORD)
    plain = Message(Method.BINDING, Class.SUCCESS, TRANSACTION).add(XOR_MAPPED_ADDRESS, mapped)
    assert plain.encode()[20:] in response


def test_long_term_request() -> None:
    message = Message.parse(LONG_TERM_REQUEST)
    assert message.get(USERNAME) == MATRIX
    assert message.get(NONCE) == b"f//499k954d6OL34oL9FSTvy64sA"
    assert message.get(REALM) == "example.org"
    key = long_term_key(MATRIX, "example.org", MATRIX_PASSWORD)
    assert message.integrity_ok(key)
    written = (
        Message(Method.BINDING, Class.REQUEST, LONG_TERM_TRANSACTION)
        .add(USERNAME, MATRIX)
        .add(NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
        .add(REALM, "example.org")
    )
    assert written.encode(key=key) == LONG_TERM_REQUEST


def test_long_term_request_with_sha256_and_userhash() -> None:
    message = Message.parse(SHA256_REQUEST)
    nonce = b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"
    assert message.get(USERHASH) == userhash(MATRIX, "example.org")
    assert message.get(NONCE) == nonce
    assert message.get(PASSWORD_ALGORITHM) == PasswordAlgorithm(2)
    key = long_term_key_sha256(MATRIX, "example.org", MATRIX_PASSWORD)
    assert message.integrity_sha256_ok(key)
    assert not message.integrity_sha256_ok(long_term_key(MATRIX, "example.org", MATRIX_PASSWORD))
    assert not message.integrity_ok(key)
    written = (
        Message(Method.BINDING, Class.REQUEST, LONG_TERM_TRANSACTION)
        .add(USERHASH, userhash(MATRIX, "example.org"))
        .add(NONCE, nonce)
        .add(REALM, "example.org")
        .add(PASSWORD_ALGORITHM, PasswordAlgorithm(2))
    )
    assert written.encode(sha256_key=key) == SHA256_REQUEST


@pytest.mark.parametrize("vector", [REQUEST, RESPONSE_IPV4, RESPONSE_IPV6], ids=["request", "IPv4", "IPv6"])
def test_fingerprint_notices_every_changed_byte(vector: bytes) -> None:
    covered = len(vector) - 8
    for at in (*range(covered), *range(covered + 4, len(vector))):
        with pytest.raises(MalformedMessage):
            Message.parse(_changed(vector, at))


@pytest.mark.parametrize("vector", [LONG_TERM_REQUEST, SHA256_REQUEST], ids=["SHA-1", "SHA-256"])
def test_integrity_notices_every_changed_byte(vector: bytes) -> None:
    key = long_term_key(MATRIX, "example.org", MATRIX_PASSWORD)
    sha256_key = long_term_key_sha256(MATRIX, "example.org", MATRIX_PASSWORD)
    for at in range(len(vector)):
        try:
            message = Message.parse(_changed(vector, at))
        except MalformedMessage:
            continue
        assert not message.integrity_ok(key)
        assert not message.integrity_sha256_ok(sha256_key)


def _changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
