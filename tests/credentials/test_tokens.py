"""Tokens as credentials: real signatures, and what must not pass for one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from turnsvr.credentials.api import Caller, Credential, Refusal, Unavailable
from turnsvr.credentials.shown import shown
from turnsvr.credentials.tokenkeys import TokenKey, read_keys
from turnsvr.credentials.tokens import Tokens
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

NOW = 1_800_000_000.0
REALM = "example.org"
SHARED = "0123456789abcdef0123456789abcdef"
OVER_TLS = Caller("192.0.2.1", secure=True)
IN_THE_OPEN = Caller("192.0.2.1", secure=False)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())


def pem(private: Any) -> bytes:
    public: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


class Ring:
    """A KeyRing whose keys a test puts in."""

    health = None

    def __init__(self, data: bytes | None, *algorithms: str) -> None:
        self.algorithms = frozenset(algorithms)
        self.current: tuple[TokenKey, ...] = () if data is None else read_keys(data, self.algorithms)
        self.looked = 0

    async def start(self) -> None: ...

    async def look_again(self) -> None:
        self.looked += 1

    async def close(self) -> None: ...


def tokens(data: bytes | None, *algorithms: str, **options: Any) -> Tokens:
    return Tokens(Ring(data, *algorithms), algorithms, **options)


def signed(key: Any, algorithm: str, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    values = {"sub": "alice", "exp": int(NOW) + 600} | claims
    stated = {name: value for name, value in values.items() if value is not None}
    return jwt.encode(stated, key, algorithm, headers=headers)


def assembled(header: dict[str, Any], claims: dict[str, Any], key: bytes | None, digest: str = "sha256") -> str:
    """A token as an attacker writes it, with an HMAC or without a signature."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    body = b".".join(parts)
    signature = b"" if key is None else hmac.digest(key, body, digest)
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


async def find(source: Tokens, token: str, caller: Caller = OVER_TLS, now: float = NOW) -> tuple[Credential, ...]:
    return await source.find(token, REALM, now, caller)


async def assert_refused(source: Tokens, token: str, why: Refusal, caller: Caller = OVER_TLS, now: float = NOW) -> None:
    assert await find(source, token, caller, now) == ()
    assert source.refusal(token, now) is why


async def test_a_shared_key_s_token_has_the_password_of_the_rest_formula() -> None:
    source = tokens(SHARED.encode(), "HS256")
    token = signed(SHARED, "HS256", turn_allocations=3)
    (found,) = await find(source, token, IN_THE_OPEN)
    password = base64.b64encode(hmac.new(SHARED.encode(), token.encode(), hashlib.sha1).digest()).decode()
    assert found == Credential(
        token,
        long_term_key(token, REALM, password),
        long_term_key_sha256(token, REALM, password),
        "alice",
        3,
        "alice (token)",
    )


async def test_a_public_key_s_token_is_its_own_password_over_tls_alone() -> None:
    source = tokens(pem(EC), "ES256")
    token = signed(EC, "ES256")
    (found,) = await find(source, token)
    assert found.md5_key == long_term_key(token, REALM, token)
    assert found.sha256_key == long_term_key_sha256(token, REALM, token)
    assert (found.quota_user, found.quota, found.shown) == ("alice", None, "alice (token)")
    await assert_refused(source, token, Refusal.INSECURE, IN_THE_OPEN)
    assert await find(tokens(pem(EC), "ES256", secure_only=False), token, IN_THE_OPEN)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (rsa.generate_private_key(65537, 2048), "PS256"),
    ],
    ids=["ES384", "EdDSA", "RS256", "PS256"],
)
async def test_other_algorithms(key: Any, algorithm: str) -> None:
    token = jwt.encode({"sub": "al", "exp": int(NOW) + 9}, key, algorithm)
    if len(token) <= 508:
        assert await find(tokens(pem(key), algorithm), token)
    await assert_refused(tokens(pem(EC), "ES256", algorithm), token, Refusal.INVALID)


async def test_a_public_key_is_never_taken_for_a_shared_one() -> None:
    """The confusion attack: HS256 with the public key, which everybody has, as the secret."""
    claims = {"sub": "alice", "exp": int(NOW) + 600}
    public = pem(EC)
    for algorithms in (("ES256",), ("ES256", "HS256")):
        source = tokens(public, *algorithms)
        for key in (public, public.strip(), public.replace(b"\n", b"")):
            await assert_refused(source, assembled({"alg": "HS256", "typ": "JWT"}, claims, key), Refusal.INVALID)


async def test_a_key_of_a_document_serves_its_own_algorithm_alone() -> None:
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key()))
    document = json.dumps({"keys": [{**jwk, "kid": "1", "alg": "ES256"}]}).encode()
    source = tokens(document, "ES256", "HS256")
    claims = {"sub": "alice", "exp": int(NOW) + 600}
    for key in (document, json.dumps(jwk).encode(), base64.urlsafe_b64decode(jwk["x"] + "="), b""):
        await assert_refused(source, assembled({"alg": "HS256", "kid": "1"}, claims, key), Refusal.INVALID)
    assert await find(source, signed(EC, "ES256", headers={"kid": "1"}))


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "", "HS512", "ES256K", 7, None, ["HS256"]])
async def test_algorithms_that_are_not_accepted(algorithm: Any) -> None:
    claims = {"sub": "alice", "exp": int(NOW) + 600}
    source = tokens(SHARED.encode() * 2, "HS256")
    for key in (None, b"", SHARED.encode() * 2):
        token = assembled({"alg": algorithm}, claims, key)
        assert await find(source, token) == ()


async def test_a_wrong_signature() -> None:
    token = signed(OTHER_EC, "ES256")
    await assert_refused(tokens(pem(EC), "ES256"), token, Refusal.INVALID)
    await assert_refused(tokens(SHARED.encode(), "HS256"), signed(SHARED[::-1], "HS256"), Refusal.INVALID)
    good = signed(SHARED, "HS256")
    head, _, tail = good.split(".")
    changed = f"{head}.{signed(SHARED, 'HS256', sub='mallory').split('.')[1]}.{tail}"
    await assert_refused(tokens(SHARED.encode(), "HS256"), changed, Refusal.INVALID)


async def test_the_clock() -> None:
    source = tokens(SHARED.encode(), "HS256")
    token = signed(SHARED, "HS256")
    assert await find(source, token, now=NOW + 599.9)
    await assert_refused(source, token, Refusal.EXPIRED, now=NOW + 600)
    await assert_refused(source, signed(SHARED, "HS256", exp=None), Refusal.INVALID)
    later = signed(SHARED, "HS256", nbf=int(NOW) + 100)
    await assert_refused(source, later, Refusal.INVALID)
    assert await find(source, later, now=NOW + 70)
    assert await find(source, signed(SHARED, "HS256", iat=int(NOW) + 10**6))


@pytest.mark.parametrize("expiry", ["1900000000", True, [], {}, float("inf"), float("nan")])
async def test_an_expiry_that_is_none(expiry: Any) -> None:
    token = assembled({"alg": "HS256"}, {"sub": "alice", "exp": expiry}, SHARED.encode())
    await assert_refused(tokens(SHARED.encode(), "HS256"), token, Refusal.INVALID)


@pytest.mark.parametrize(
    ("claims", "options", "good"),
    [
        ({}, {"issuer": "https://app.example.org"}, False),
        ({"iss": "https://app.example.org"}, {"issuer": "https://app.example.org"}, True),
        ({"iss": "https://evil.example.org"}, {"issuer": "https://app.example.org"}, False),
        ({"iss": "https://app.example.org"}, {}, True),
        ({}, {"audience": "turn"}, False),
        ({"aud": "turn"}, {"audience": "turn"}, True),
        ({"aud": ["shop", "turn"]}, {"audience": "turn"}, True),
        ({"aud": "shop"}, {"audience": "turn"}, False),
        ({"aud": "shop"}, {}, False),
        ({"sub": None}, {}, False),
        ({"sub": ""}, {}, False),
        ({"sub": "a\nb"}, {}, False),
        ({"sub": "x" * 257}, {}, False),
        ({"sub": None, "account": "alice"}, {"user_claim": "account"}, True),
        ({"account": 7}, {"user_claim": "account"}, False),
        ({"turn_allocations": 0}, {}, True),
        ({"turn_allocations": -1}, {}, False),
        ({"turn_allocations": 1.5}, {}, False),
        ({"turn_allocations": True}, {}, False),
        ({"turn_allocations": "many"}, {}, False),
        ({"turn_allocations": "many"}, {"quota_claim": "lines"}, True),
        ({"crit": ["exp"]}, {}, True),
    ],
)
async def test_claims(claims: dict[str, Any], options: dict[str, Any], good: bool) -> None:
    token = signed(SHARED, "HS256", **claims)
    source = tokens(SHARED.encode(), "HS256", **options)
    if good:
        assert await find(source, token)
    else:
        await assert_refused(source, token, Refusal.INVALID)


async def test_a_header_that_demands_what_we_do_not_know() -> None:
    token = signed(SHARED, "HS256", headers={"crit": ["sealed"], "sealed": True})
    await assert_refused(tokens(SHARED.encode(), "HS256"), token, Refusal.INVALID)


async def test_keys_go_by_their_names() -> None:
    def jwk(key: Any, kid: str) -> dict[str, Any]:
        return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid}

    document = json.dumps({"keys": [jwk(OTHER_EC, "old"), jwk(EC, "new")]}).encode()
    ring = Ring(document, "ES256")
    source = Tokens(ring, ["ES256"])
    assert await find(source, signed(EC, "ES256", headers={"kid": "new"}))
    assert await find(source, signed(EC, "ES256"))
    await assert_refused(source, signed(EC, "ES256", headers={"kid": "old"}), Refusal.INVALID)
    assert ring.looked == 0
    await assert_refused(source, signed(EC, "ES256", headers={"kid": "newer"}), Refusal.INVALID)
    assert ring.looked == 1


async def test_a_key_that_is_taken_away_takes_its_tokens_along() -> None:
    ring = Ring(pem(EC), "ES256")
    source = Tokens(ring, ["ES256"])
    token = signed(EC, "ES256")
    assert await find(source, token)
    ring.current = read_keys(pem(OTHER_EC), ring.algorithms)
    await assert_refused(source, token, Refusal.INVALID)


async def test_a_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verified = 0
    decode = jwt.decode

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal verified
        verified += 1
        return decode(*args, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    source = tokens(pem(EC), "ES256")
    token = signed(EC, "ES256")
    for realm in ("one", "two", "one"):
        (found,) = await source.find(token, realm, NOW, OVER_TLS)
        assert found.md5_key == long_term_key(token, realm, token)
    assert verified == 1
    await assert_refused(source, token, Refusal.EXPIRED, now=NOW + 601)


async def test_without_keys_nothing_can_be_said() -> None:
    source = tokens(None, "ES256")
    with pytest.raises(Unavailable):
        await find(source, signed(EC, "ES256"))
    assert await find(source, "alice") == ()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "alice",
        "alice.b.smith",
        "1800000600:alice",
        "eyJ",
        "eyJ..",
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJ.e.y",
        "eyJä.eyJ.eyJ",
        "eyJhbGciOiJIUzI1NiJ9.bm8ganNvbg.AAAA",
        "eyJhbGciOiJIUzI1NiJ9.W10.AAAA",
    ],
)
async def test_names_that_are_no_tokens(name: str) -> None:
    assert await find(tokens(SHARED.encode(), "HS256"), name) == ()


async def test_a_token_is_no_longer_than_a_user_name() -> None:
    def of(size: int) -> str:
        return signed(SHARED, "HS256", pad="x" * size)

    size = next(size for size in range(400) if len(of(size)) > 508)
    assert len(of(size - 1)) <= 508
    source = tokens(SHARED.encode(), "HS256")
    assert await find(source, of(size - 1))
    assert await find(source, of(size)) == ()


async def test_a_token_is_never_shown() -> None:
    token = signed(EC, "ES256")
    (found,) = await find(tokens(pem(EC), "ES256"), token)
    assert found.shown == "alice (token)"
    assert token not in shown(token)


async def test_userhash_is_not_resolved() -> None:
    source = tokens(SHARED.encode(), "HS256")
    assert source.by_userhash(bytes(32), REALM) is None
    assert not source.anonymity
