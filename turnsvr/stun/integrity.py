"""Keys, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT, USERHASH (RFC 8489 sections 9.2, 14.4-14.7).

Each check and append works on the encoded message: the digest covers the bytes before the attribute, with the
header's length set as if the message ended right after it.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import crc32
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

_SHA1_SIZE: Final = 20
_SHA256_SIZE: Final = 32
_SHA256_MIN_SIZE: Final = 16
_FINGERPRINT_XOR: Final = 0x5354554E

_MAX_KEPT: Final = 1024
"""Keys whose Hmac is kept; the one that was not used for longest goes."""
_BLOCK_SIZE: Final = 64
"""Of SHA-1 and of SHA-256, in bytes."""
_INNER_PAD: Final = bytes(each ^ 0x36 for each in range(256))
_OUTER_PAD: Final = bytes(each ^ 0x5C for each in range(256))


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """MD5 of username ":" realm ":" password, 16 bytes (RFC 8489 section 9.2.2).

    Text is taken as it is: what OpaqueString profiling (RFC 8265) would refuse is the caller's to refuse.
    """
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()


def long_term_key_sha256(username: str, realm: str, password: str) -> bytes:
    """SHA-256 of username ":" realm ":" password, 32 bytes (RFC 8489 section 18.5.1.2)."""
    return hashlib.sha256(f"{username}:{realm}:{password}".encode()).digest()


def userhash(username: str, realm: str) -> bytes:
    """SHA-256 of username ":" realm, 32 bytes (RFC 8489 section 14.4)."""
    return hashlib.sha256(f"{username}:{realm}".encode()).digest()


def fingerprint(before: bytes) -> int:
    """FINGERPRINT value over the bytes before the attribute; their length field counts it already."""
    return crc32(before) ^ _FINGERPRINT_XOR


class Hmac:
    """HMAC (RFC 2104) of many messages under one key, of at most a block: the key is hashed once, not with each."""

    def __init__(self, key: bytes, new: Callable[[bytes], _Hash]) -> None:
        block = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = new(block.translate(_INNER_PAD))
        self._outer = new(block.translate(_OUTER_PAD))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


@lru_cache(_MAX_KEPT)
def _sha1(key: bytes) -> Hmac:
    return Hmac(key, hashlib.sha1)


@lru_cache(_MAX_KEPT)
def _sha256(key: bytes) -> Hmac:
    return Hmac(key, hashlib.sha256)


def check_sha1(key: bytes, data: bytes, at: int) -> bool:
    """Whether the MESSAGE-INTEGRITY that starts at offset `at` is right; constant time."""
    value = _value(data, at)
    if len(value) != _SHA1_SIZE:
        return False
    return hmac.compare_digest(_sha1(key).digest(_covered(data[:at], 4 + _SHA1_SIZE)), value)


def check_sha256(key: bytes, data: bytes, at: int) -> bool:
    """Whether the MESSAGE-INTEGRITY-SHA256 at offset `at` is right; it may be cut to 16, 20, ... bytes."""
    value = _value(data, at)
    size = len(value)
    if size % 4 or not _SHA256_MIN_SIZE <= size <= _SHA256_SIZE:
        return False
    digest = _sha256(key).digest(_covered(data[:at], 4 + size))
    return hmac.compare_digest(digest[:size], value)


def append_sha1(key: bytes, data: bytes) -> bytes:
    covered = _covered(data, 4 + _SHA1_SIZE)
    return covered + b"\x00\x08\x00\x14" + _sha1(key).digest(covered)


def append_sha256(key: bytes, data: bytes) -> bytes:
    covered = _covered(data, 4 + _SHA256_SIZE)
    return covered + b"\x00\x1c\x00\x20" + _sha256(key).digest(covered)


def append_fingerprint(data: bytes) -> bytes:
    covered = _covered(data, 8)
    return covered + b"\x80\x28\x00\x04" + fingerprint(covered).to_bytes(4, "big")


def _value(data: bytes, at: int) -> bytes:
    return data[at + 4 : at + 4 + (data[at + 2] << 8 | data[at + 3])]


def _covered(before: bytes, attribute_size: int) -> bytes:
    """The bytes before an attribute, with the header's length counting that attribute and no more."""
    length = len(before) - 20 + attribute_size
    if before[2] << 8 | before[3] == length:
        return before
    return before[:2] + length.to_bytes(2, "big") + before[4:]
