"""Stateless nonces: each carries its expiry and a MAC over it and the client's transport address.

RFC 8489 section 9.2: the nonce cookie announces the security features; no two clients get the same nonce.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from enum import Enum
from hashlib import blake2s

from turnsvr.plane import Challenge
from turnsvr.stun.address import Address
from turnsvr.stun.attributes import PasswordAlgorithm

_COOKIE = b"obMatJos2"
_MAC_SIZE = 12
_EXPIRY_SIZE = 4
_PORT_SIZE = 2
_TOKEN_CHARACTERS = 22

# RFC 8489 section 9.2 counts feature bits from the most significant, its erratum and its own test vector from the
# least; unassigned bits mean nothing to a client of either reading, so each feature is set in both.
_PASSWORD_ALGORITHMS = 0x800001
_USERNAME_ANONYMITY = 0x400002

SECRET_SIZE = 32
"""Bytes: the most that BLAKE2s takes as its key (RFC 7693 section 2.1)."""


class NonceVerdict(Enum):
    """What a nonce is worth."""

    FRESH = "fresh"
    EXPIRED = "expired"
    """Ours, and given to this client, but too old."""
    FOREIGN = "foreign"
    """Not ours, or not given to this client."""


class Nonces:
    """Makes and judges nonces. Times in seconds on the caller's clock, which must not be negative."""

    def __init__(
        self, secret: bytes, lifetime: float, *, anonymity: bool, algorithms: tuple[PasswordAlgorithm, ...]
    ) -> None:
        """algorithms are offered along with these nonces: those that came with others are foreign."""
        self.algorithms = algorithms
        self._offer = bytes(each.number & 0xFF for each in algorithms)
        self._secret = secret
        self._lifetime = lifetime
        features = _PASSWORD_ALGORITHMS | (_USERNAME_ANONYMITY if anonymity else 0)
        self._prefix = _COOKIE + b64encode(features.to_bytes(3, "big"))

    def make(self, client: Address, now: float) -> bytes:
        """A nonce for this client that is fresh for the lifetime, to the second."""
        expiry = int(now + self._lifetime) + 1
        token = expiry.to_bytes(_EXPIRY_SIZE, "big") + self._mac(expiry, client)
        return self._prefix + b2a_base64(token, newline=False)[:_TOKEN_CHARACTERS]

    def challenge(self, attributes: bytes, nonce: bytes) -> Challenge:
        """attributes: those of a challenge, encoded, with this nonce among them."""
        before, _, after = attributes.partition(nonce)
        return Challenge(before + self._prefix, after, self._secret, self._offer, self._lifetime)

    def judge(self, nonce: bytes, client: Address, now: float) -> NonceVerdict:
        """Constant time in what is secret."""
        if not nonce.startswith(self._prefix) or len(nonce) != len(self._prefix) + _TOKEN_CHARACTERS:
            return NonceVerdict.FOREIGN
        try:
            raw = a2b_base64(nonce[len(self._prefix) :] + b"==")
        except Base64Error:
            return NonceVerdict.FOREIGN
        expiry = int.from_bytes(raw[:_EXPIRY_SIZE], "big")
        if not hmac.compare_digest(raw[_EXPIRY_SIZE:], self._mac(expiry, client)):
            return NonceVerdict.FOREIGN
        return NonceVerdict.FRESH if now < expiry else NonceVerdict.EXPIRED

    def _mac(self, expiry: int, client: Address) -> bytes:
        signed = expiry.to_bytes(_EXPIRY_SIZE, "big") + client.port.to_bytes(_PORT_SIZE, "big") + client.packed
        return blake2s(signed, digest_size=_MAC_SIZE, key=self._secret, person=self._offer).digest()
