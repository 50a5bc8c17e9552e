"""Which session a challenge leads to, and which answers it believes."""

from __future__ import annotations

import pytest

from turnsvr.client.credentials import MD5, SHA256, BidDown, Login, NoChallenge, Security, challenged
from turnsvr.stun.attributes import (
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    NONCE,
    PASSWORD_ALGORITHMS,
    REALM,
    USERHASH,
    USERNAME,
    PasswordAlgorithm,
)
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256
from turnsvr.stun.message import Class, Message, Method

TRANSACTION = bytes(range(12))
LOGIN = Login("alice", "wonderland")
PROMISING = b"obMatJos2gAAAnonce"
ANONYMOUS = b"obMatJos2wAAAnonce"


def challenge(nonce: bytes = b"nonce", algorithms: tuple[int, ...] = ()) -> Message:
    message = Message(Method.ALLOCATE, Class.ERROR, TRANSACTION).add(REALM, "example.org").add(NONCE, nonce)
    if algorithms:
        message.add(PASSWORD_ALGORITHMS, tuple(PasswordAlgorithm(number) for number in algorithms))
    return message


def signed(response: Message, *, key: bytes | None = None, sha256_key: bytes | None = None) -> Message:
    return Message.parse(response.encode(key=key, sha256_key=sha256_key))


def test_without_algorithms_the_request_is_signed_as_ever() -> None:
    session = challenged(LOGIN, challenge())
    request = Message.parse(session.sign(Message(Method.ALLOCATE, Class.REQUEST, TRANSACTION)))
    assert request.integrity_ok(long_term_key("alice", "example.org", "wonderland"))
    assert MESSAGE_INTEGRITY_SHA256 not in request
    assert request.get(USERNAME) == "alice"


@pytest.mark.parametrize(
    ("offered", "algorithm"), [((SHA256, MD5), SHA256), ((MD5, SHA256), MD5), ((77, SHA256), SHA256)]
)
def test_the_first_known_algorithm_is_taken(offered: tuple[int, ...], algorithm: int) -> None:
    session = challenged(LOGIN, challenge(PROMISING, offered))
    assert session.algorithm == algorithm
    request = Message.parse(session.sign(Message(Method.ALLOCATE, Class.REQUEST, TRANSACTION)))
    keys = {MD5: long_term_key, SHA256: long_term_key_sha256}
    assert request.integrity_sha256_ok(keys[algorithm]("alice", "example.org", "wonderland"))
    assert MESSAGE_INTEGRITY not in request


def test_a_classic_client_ignores_the_offer() -> None:
    session = challenged(Login("alice", "wonderland", Security.CLASSIC), challenge(PROMISING, (SHA256,)))
    assert (session.algorithm, session.algorithms) == (MD5, ())


def test_a_promise_without_algorithms_is_an_attack() -> None:
    with pytest.raises(BidDown):
        challenged(LOGIN, challenge(PROMISING))


@pytest.mark.parametrize("nonce", [b"obMatJos2", b"obMatJos2!!!!", b"obMatJos2AAAA", b"gAAA"])
def test_a_nonce_without_the_bit_promises_nothing(nonce: bytes) -> None:
    assert challenged(LOGIN, challenge(nonce)).algorithms == ()


@pytest.mark.parametrize(("nonce", "hashed"), [(ANONYMOUS, True), (PROMISING, False)])
def test_the_user_name_is_hashed_where_the_server_can_resolve_it(nonce: bytes, hashed: bool) -> None:
    session = challenged(Login("alice", "wonderland", anonymous=True), challenge(nonce, (SHA256,)))
    request = Message.parse(session.sign(Message(Method.ALLOCATE, Class.REQUEST, TRANSACTION)))
    assert (USERHASH in request, USERNAME in request) == (hashed, not hashed)


def test_a_stale_nonce_keeps_the_realm() -> None:
    before = challenged(LOGIN, challenge())
    stale = Message(Method.REFRESH, Class.ERROR, TRANSACTION).add(NONCE, b"fresh")
    after = challenged(LOGIN, stale, before)
    assert (after.realm, after.nonce, after.key) == ("example.org", b"fresh", before.key)


@pytest.mark.parametrize(
    "message",
    [
        Message(Method.ALLOCATE, Class.ERROR, TRANSACTION),
        Message(Method.ALLOCATE, Class.ERROR, TRANSACTION).add(NONCE, b"nonce"),
        Message(Method.ALLOCATE, Class.ERROR, TRANSACTION).add(REALM, "example.org"),
    ],
)
def test_half_a_challenge_is_none(message: Message) -> None:
    with pytest.raises(NoChallenge):
        challenged(LOGIN, message)


def test_a_success_counts_only_with_the_right_integrity() -> None:
    md5, sha256 = challenged(LOGIN, challenge()), challenged(LOGIN, challenge(PROMISING, (SHA256,)))
    success = Message(Method.ALLOCATE, Class.SUCCESS, TRANSACTION)
    assert md5.accepts(signed(success, key=md5.key))
    assert sha256.accepts(signed(success, sha256_key=sha256.key))
    assert not md5.accepts(signed(success, key=bytes(16)))
    assert not sha256.accepts(signed(success, sha256_key=bytes(32)))
    assert not sha256.accepts(signed(success, key=sha256.key)), "the weaker integrity does not do"
    assert not md5.accepts(signed(success))


def test_an_error_counts_unsigned_but_not_with_the_wrong_integrity() -> None:
    session = challenged(LOGIN, challenge())
    error = Message(Method.ALLOCATE, Class.ERROR, TRANSACTION)
    assert session.accepts(signed(error))
    assert session.accepts(signed(error, key=session.key))
    assert not session.accepts(signed(error, key=bytes(16)))


def test_the_password_does_not_show() -> None:
    assert "wonderland" not in repr(LOGIN) + repr(challenged(LOGIN, challenge()))
