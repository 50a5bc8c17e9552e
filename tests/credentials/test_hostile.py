"""Whatever strangers and broken services send: refused in the agreed way, and never a fault."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import jwt
from hypothesis import example, given
from hypothesis import strategies as st

from tests.credentials.test_tokens import NOW, OVER_TLS, REALM, SHARED, signed, tokens
from turnsvr.credentials.hookanswer import MAX_TTL, BadHookAnswer, read_answer
from turnsvr.credentials.tokenkeys import ALGORITHMS, BadKeys, read_keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
GOOD = signed(SHARED, "HS256")


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def accepted(name: str) -> bool:
    source = tokens(SHARED.encode(), "HS256", audience="turn", issuer="app")
    return bool(asyncio.run(source.find(name, REALM, NOW, OVER_TLS)))


@given(st.text(max_size=508))
@example("eyJ.eyJ.eyJ")
@example("eyJhbGciOiJIUzI1NiJ9..")
def test_a_text_is_no_token(name: str) -> None:
    assert not accepted(name)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c"]), JSON), JSON)
def test_a_forged_token_is_none(header: dict[str, Any], claims: object) -> None:
    assert not accepted(f"{part({'alg': 'HS256'} | header)}.{part(claims)}.{part('signature')}")


@given(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "sub", "jti", "turn_allocations"]),
        JSON,
    )
)
def test_claims_that_are_signed_may_be_odd_all_the_same(claims: dict[str, Any]) -> None:
    values = {"sub": "alice", "exp": NOW + 60, **claims}
    try:
        token = jwt.encode(values, SHARED, "HS256")
    except (TypeError, ValueError):
        return
    source = tokens(SHARED.encode(), "HS256")
    for found in asyncio.run(source.find(token, REALM, NOW, OVER_TLS)):
        assert found.quota_user == values["sub"]
        assert found.quota is None or found.quota == values["turn_allocations"] >= 0


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("ABab01-_.=+/ "))
def test_one_character_that_is_another(at: int, character: str) -> None:
    """Bits of base64url that mean nothing aside: they decode to the same signature."""
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    source = tokens(SHARED.encode(), "HS256")
    found = asyncio.run(source.find(changed, REALM, NOW, OVER_TLS))
    if at != len(GOOD) - 1:
        assert bool(found) == (changed == GOOD)


@given(
    st.sampled_from([200, 200, 200, 400, 403, 404, 422, 500]),
    st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
)
@example(200, b'{"password": "x", "ttl": 1e999}')
@example(200, b'{"password": "x", "quota": 1e999}')
@example(200, b'{"password": "x", "ttl": 9' + b"9" * 5_000 + b"}")
def test_an_answer_is_one_or_none(status: int, body: bytes) -> None:
    try:
        answer = read_answer(status, {"Cache-Control": "max-age=junk"}, body)
    except BadHookAnswer:
        return
    assert 0 <= answer.ttl <= MAX_TTL
    assert bool(answer.credentials("alice", REALM)) == answer.accepted == (status == 200)


VALUES = JSON | st.sampled_from(["password", "00" * 16, "00" * 32, 60, 0, -1])


@given(st.dictionaries(st.sampled_from(["password", "key", "sha256_key", "user", "quota", "ttl"]), VALUES))
def test_an_answer_of_the_right_names(values: dict[str, Any]) -> None:
    try:
        answer = read_answer(200, {}, json.dumps(values).encode())
    except BadHookAnswer:
        return
    (found,) = answer.credentials("alice", REALM)
    assert found.md5_key is None or len(found.md5_key) == 16
    assert found.sha256_key is None or len(found.sha256_key) == 32
    assert answer.quota is None or answer.quota >= 0


@given(
    st.binary()
    | JSON.map(lambda value: json.dumps({"keys": value}).encode())
    | st.lists(
        st.dictionaries(
            st.sampled_from(["kty", "crv", "x", "y", "n", "e", "k", "d", "alg", "use", "kid", "key_ops"]),
            JSON | st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "ES256"]),
        )
    ).map(lambda value: json.dumps({"keys": value}).encode())
)
def test_keys_are_some_or_none(data: bytes) -> None:
    try:
        found = read_keys(data, frozenset(ALGORITHMS))
    except BadKeys:
        return
    assert found
    assert all(key.algorithms for key in found)
