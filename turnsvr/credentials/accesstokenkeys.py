"""Keys that an authorization server and this one share, and the access tokens that they seal (RFC 7635 section 6.2).

A token is a nonce and, sealed by AES-GCM with the server's name as associated data: the key that the client signs its
requests with, when the token was made, and for how long it is good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from turnsvr.config.sealingkeys import KEY_SIZES

MAC_KEY_SIZES: Final = range(20, 65)
"""Bytes of the key that a client signs with: at least what HMAC-SHA-1 wants, at most a block."""
SKEW: Final = 5.0
"""Seconds that clocks may differ by (RFC 7635 section 9: "The RECOMMENDED value for the allowed Delta")."""

_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_FRACTION_BITS: Final = 16
_FRACTIONS: Final = 64_000
"""Parts of a second that the lowest 16 bits of a token's time count."""


class BadToken(Exception):
    """This key did not seal the token for this server, or what it seals makes no sense."""


class Contents(NamedTuple):
    """What a token seals; times in seconds, `issued` since 1970."""

    mac_key: bytes
    issued: float
    lifetime: int

    def left(self, wall_time: float) -> float:
        """Seconds that it is still good for, at most its lifetime; 0 or less where it is not good at this time.

        RFC 7635 section 9 wants "lifetime + Delta > abs(RDnew - TS)", so that a clock may also be behind.
        """
        away = abs(wall_time - self.issued)
        if not self.lifetime or away >= self.lifetime + SKEW:
            return 0.0
        return min(self.lifetime, self.issued + self.lifetime + SKEW - wall_time)


@dataclass(frozen=True, slots=True)
class AccessTokenKey:
    """A key that seals tokens, by the name that clients send as USERNAME ("kid")."""

    kid: str
    key: bytes = field(repr=False)
    """Of a size in KEY_SIZES."""
    not_before: float = 0.0
    """Seconds since 1970."""
    lifetime: float = 0.0
    """Seconds from then; 0 for ever."""
    realm: str | None = None
    """The realm whose rules hold for those who show its tokens; None for the one that they name."""

    @property
    def algorithm(self) -> str:
        return next(name for name, size in KEY_SIZES.items() if size == len(self.key))

    def in_force(self, wall_time: float) -> bool:
        """Whether tokens of it are taken at this time."""
        if wall_time < self.not_before - SKEW:
            return False
        return not self.lifetime or wall_time < self.not_before + self.lifetime + SKEW

    def open(self, token: bytes, server_name: str) -> Contents:
        """Raises BadToken."""
        from cryptography.exceptions import InvalidTag  # a server without access tokens starts without it
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        size = int.from_bytes(token[:2], "big")
        sealed = token[2 + size :]
        if size != _NONCE_SIZE or len(sealed) < _TAG_SIZE:
            raise BadToken
        try:
            plain = AESGCM(self.key).decrypt(token[2 : 2 + size], sealed, server_name.encode())
        except InvalidTag:
            raise BadToken from None
        return _read(plain)

    def seal(self, contents: Contents, server_name: str, nonce: bytes) -> bytes:
        """A token; nonce: 12 bytes, never twice with one key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        issued = int(contents.issued) << _FRACTION_BITS | int(contents.issued % 1 * _FRACTIONS)
        plain = (
            len(contents.mac_key).to_bytes(2, "big")
            + contents.mac_key
            + issued.to_bytes(8, "big")
            + contents.lifetime.to_bytes(4, "big")
        )
        return len(nonce).to_bytes(2, "big") + nonce + AESGCM(self.key).encrypt(nonce, plain, server_name.encode())


def _read(plain: bytes) -> Contents:
    size = int.from_bytes(plain[:2], "big")
    mac_key, rest = plain[2 : 2 + size], plain[2 + size :]
    if size not in MAC_KEY_SIZES or len(rest) != 12:
        raise BadToken
    issued = int.from_bytes(rest[:8], "big")
    seconds = (issued >> _FRACTION_BITS) + (issued & (1 << _FRACTION_BITS) - 1) / _FRACTIONS
    return Contents(mac_key, seconds, int.from_bytes(rest[8:], "big"))
