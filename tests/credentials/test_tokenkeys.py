"""Keys as people write them down, and which of them are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from turnsvr.credentials.tokenkeys import ALGORITHMS, BadKeys, check_algorithms, read_keys
from turnsvr.net.tls import TlsFiles

ALL = frozenset(ALGORITHMS)
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
SHARED_48 = b"key of the tokens and no other's: 48 bytes, indeed"[:48]


def pem(private: Any) -> bytes:
    public: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def ec_jwk(**more: Any) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())), **more}


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (EC, {"ES256"}),
        (ec.generate_private_key(ec.SECP521R1()), {"ES512"}),
        (ED, {"EdDSA"}),
        (RSA, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ],
    ids=["P-256", "P-521", "Ed25519", "RSA"],
)
def test_pem(key: Any, algorithms: set[str]) -> None:
    (found,) = read_keys(b"# our key\n" + pem(key), ALL)
    assert found.algorithms == algorithms
    assert found.shared is None


def test_several_in_one_file_and_a_certificate(certificate: TlsFiles) -> None:
    found = read_keys(pem(EC) + pem(RSA) + certificate.certificate.read_bytes(), frozenset({"ES256"}))
    assert [key.algorithms for key in found] == [{"ES256"}] * 2


def test_a_shared_key() -> None:
    (found,) = read_keys(b"  " + SHARED_48 + b"\n", ALL)
    assert found.shared == SHARED_48
    assert found.algorithms == {"HS256", "HS384"}
    assert "no other" not in repr(found)


def test_jwks() -> None:
    shared = {"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY", "kid": "s"}
    rsa_jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())) | {"alg": "RS256", "kid": "r"}
    found = read_keys(jwks(ec_jwk(kid="e"), rsa_jwk, shared), ALL)
    assert [(key.kid, *key.algorithms) for key in found] == [("e", "ES256"), ("r", "RS256"), ("s", "HS256")]
    assert found[2].shared == b"0123456789abcdef0123456789abcdef"
    assert [key.kid for key in read_keys(jwks(ec_jwk(kid="e"), shared), ALL, public_only=True)] == ["e"]
    (single,) = read_keys(json.dumps(ec_jwk()).encode(), ALL)
    assert single.kid is None


def test_keys_of_a_document_that_are_for_others_are_left_out() -> None:
    odd: list[Any] = [
        ec_jwk(use="enc", kid="encryption"),
        ec_jwk(key_ops=["sign"], kid="signing"),
        ec_jwk(key_ops=7),
        ec_jwk(alg="ES384"),
        ec_jwk(alg=["ES256"]),
        ec_jwk(crv="P-999"),
        {"kty": "future"},
        {"kty": "oct", "k": "c2hvcnQ"},
        {},
        7,
        "text",
        None,
    ]
    assert [key.kid for key in read_keys(jwks(*odd, ec_jwk(kid="good", use="sig")), ALL)] == ["good"]


def test_the_private_half_of_a_document_s_key_is_not_kept() -> None:
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC))
    (found,) = read_keys(jwks(private), ALL)
    assert not hasattr(found.value, "sign")


@pytest.mark.parametrize(
    ("data", "algorithms", "reason"),
    [
        (b"", ALL, "shared key of less than 32 bytes"),
        (b"password", ALL, "shared key of less than 32 bytes"),
        (SHARED_48[:32], frozenset({"ES256"}), "no key for the algorithms ES256; what it holds is for HS256"),
        (pem(EC), frozenset({"HS256"}), "no key for the algorithms HS256; what it holds is for ES256"),
        (
            EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            ALL,
            "a private key",
        ),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", ALL, "PEM that is no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA", ALL, "no key for"),
        (pem(dsa.generate_private_key(1024)), ALL, "a kind that signs no tokens"),
        (pem(rsa.generate_private_key(65537, 1024)), ALL, "less than 2048 bits"),
        (b"{", ALL, "like JSON and is none"),
        (b"{" * 100_000, ALL, "like JSON and is none"),
        (b'{"keys": 7}', ALL, "keys is no list"),
        (b'{"keys": []}', ALL, "no key for"),
        (b"k" * 300_000, ALL, "more than 262144 bytes"),
    ],
)
def test_no_keys(data: bytes, algorithms: frozenset[str], reason: str) -> None:
    with pytest.raises(BadKeys, match=reason) as caught:
        read_keys(data, algorithms)
    assert "kkkk" not in str(caught.value)


def test_algorithms_by_name() -> None:
    assert check_algorithms(["ES256", "HS256"]) == {"ES256", "HS256"}
    for name in ("none", "HS1", "es256", ""):
        with pytest.raises(BadKeys, match="no algorithm for tokens"):
            check_algorithms(["ES256", name])


def test_so_many_keys_and_no_more(tmp_path: Path) -> None:
    assert len(read_keys(jwks(*(ec_jwk(kid=str(number)) for number in range(150))), ALL)) == 100


def test_a_placeholder_is_no_shared_key() -> None:
    with pytest.raises(BadKeys, match="placeholder"):
        read_keys(b"a-string-secret-at-least-256-bits-long", frozenset({"HS256"}))
