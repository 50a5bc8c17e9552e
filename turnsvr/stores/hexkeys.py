"""How a user's keys are written in a store: hexadecimal, as coturn reads them.

coturn takes the first 32 digits of a value, the MD5 key, and leaves what follows; there the SHA-256 key stands.
"""

from __future__ import annotations

import re

from turnsvr.stores.api import UserKeys
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

_MD5_DIGITS = 32
_SHA256_DIGITS = 64
_HEX = re.compile("[0-9A-Fa-f]*")


def write(keys: UserKeys) -> str:
    """The MD5 key, the SHA-256 key, or one behind the other: 32, 64 or 96 digits. Raises ValueError for none."""
    if not keys.known:
        raise ValueError("there is no key to write")
    return (keys.md5 or b"").hex() + (keys.sha256 or b"").hex()


def read(text: str) -> UserKeys | None:
    """What a value of 32, 64 or 96 hexadecimal digits says, None for any other; columns of fixed width pad it."""
    digits = text.strip()
    if not _HEX.fullmatch(digits):
        return None
    if len(digits) == _MD5_DIGITS:
        return UserKeys(md5=bytes.fromhex(digits))
    if len(digits) == _SHA256_DIGITS:
        return UserKeys(sha256=bytes.fromhex(digits))
    if len(digits) == _MD5_DIGITS + _SHA256_DIGITS:
        return UserKeys(bytes.fromhex(digits[:_MD5_DIGITS]), bytes.fromhex(digits[_MD5_DIGITS:]))
    return None


def of_password(realm: str, name: str, password: str) -> UserKeys:
    return UserKeys(long_term_key(name, realm, password), long_term_key_sha256(name, realm, password))
