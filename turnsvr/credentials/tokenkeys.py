"""The keys that sign tokens, as PEM, JWKS (RFC 7517) or the text of a shared key; which algorithms fit each. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from turnsvr.config.placeholders import is_placeholder

MAX_BYTES = 262_144
"""Of a file or document with keys."""
_MAX_KEYS = 100
_MIN_RSA_BITS = 2_048

_SHARED = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms of a shared key, and how many bytes it has at least (RFC 7518 section 3.2)."""
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
ALGORITHMS = frozenset({*_SHARED, *_RSA, *_BY_CURVE.values(), "EdDSA"})
"""Every algorithm that can be accepted; `none` is not among them."""

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class BadKeys(Exception):
    """No keys that serve; the text says why, without what stands in them."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key, for its own algorithms alone: what a token says of its algorithm never makes it something else."""

    algorithms: frozenset[str]
    kid: str | None
    value: Any = field(repr=False)
    """What PyJWT verifies with: a public key, or the bytes of a shared one."""

    @property
    def shared(self) -> bytes | None:
        return self.value if isinstance(self.value, bytes) else None


def check_algorithms(names: Collection[str]) -> frozenset[str]:
    """The same as a set; raises BadKeys for one that is not known, such as `none`."""
    for name in names:
        if name not in ALGORITHMS:
            raise BadKeys(f"{name} is no algorithm for tokens; known are {', '.join(sorted(ALGORITHMS))}")
    return frozenset(names)


def read_keys(data: bytes, algorithms: frozenset[str], *, public_only: bool = False) -> tuple[TokenKey, ...]:
    """The keys of a file or document that fit these algorithms; raises BadKeys when none does.

    public_only: leave shared keys out, which a published document must not hold.
    """
    if len(data) > MAX_BYTES:
        raise BadKeys(f"holds more than {MAX_BYTES} bytes")
    found = list(_read(data))[:_MAX_KEYS]
    kept = tuple(
        TokenKey(key.algorithms & algorithms, key.kid, key.value)
        for key in found
        if key.algorithms & algorithms and not (public_only and key.shared is not None)
    )
    if not kept:
        fitting = sorted({name for key in found for name in key.algorithms})
        hint = f"; what it holds is for {', '.join(fitting)}" if fitting else ""
        raise BadKeys(f"holds no key for the algorithms {', '.join(sorted(algorithms))}{hint}")
    return kept


def _read(data: bytes) -> Iterator[TokenKey]:
    text = data.strip()
    if text.startswith(b"{"):
        yield from _jwks(text)
    elif b"-----BEGIN" in text:
        yield from _pem(text)
    else:
        yield _shared(text, None)


def _pem(text: bytes) -> Iterator[TokenKey]:
    for block in _PEM.finditer(text):
        if b"PRIVATE" in block[1]:
            raise BadKeys("holds a private key; the server needs the public one alone")
        try:
            if block[1] == b"CERTIFICATE":
                key: object = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            raise BadKeys("holds PEM that is no public key") from None
        yield _public(key, None)


def _jwks(text: bytes) -> Iterator[TokenKey]:
    """Keys of a document, or a single one. Those that are not known or not for signatures are left out."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadKeys("begins like JSON and is none") from None
    listed = document.get("keys", [document])
    if not isinstance(listed, list):
        raise BadKeys("is no JWKS document: keys is no list")
    for each in listed:
        try:
            if each.get("use", "sig") == "sig" and "verify" in each.get("key_ops", ["verify"]):
                yield _jwk(each)
        except (jwt.PyJWTError, BadKeys, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
            continue


def _jwk(values: Mapping[str, Any]) -> TokenKey:
    kid = values.get("kid")
    value = jwt.PyJWK.from_dict(dict(values)).key
    if hasattr(value, "public_key"):
        value = value.public_key()
    key = _shared(value, kid) if isinstance(value, bytes) else _public(value, kid)
    stated = values.get("alg")
    return key if stated is None else TokenKey(key.algorithms & {stated}, kid, key.value)


def _shared(key: bytes, kid: str | None) -> TokenKey:
    if len(key) < min(_SHARED.values()):
        raise BadKeys(f"holds a shared key of less than {min(_SHARED.values())} bytes, which could be guessed")
    if is_placeholder(key.decode("utf-8", "replace")):
        raise BadKeys("holds a placeholder in place of a shared key")
    return TokenKey(frozenset(name for name, size in _SHARED.items() if len(key) >= size), kid, key)


def _public(key: object, kid: str | None) -> TokenKey:
    if isinstance(key, RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise BadKeys(f"holds an RSA key of less than {_MIN_RSA_BITS} bits")
        return TokenKey(_RSA, kid, key)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _BY_CURVE:
        return TokenKey(frozenset({_BY_CURVE[key.curve.name]}), kid, key)
    if isinstance(key, (Ed25519PublicKey, Ed448PublicKey)):
        return TokenKey(frozenset({"EdDSA"}), kid, key)
    raise BadKeys("holds a key of a kind that signs no tokens")
