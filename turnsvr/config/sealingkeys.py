"""Keys that seal access tokens (RFC 7635), as texts: in the settings, and in coturn's tables.

No error text repeats a key.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from datetime import UTC, datetime
from typing import Final

from turnsvr.config.units import BadValue, parse_duration

KEY_SIZES: Final = {"A256GCM": 32, "A128GCM": 16}
"""Bytes of a key, by the algorithm's name (RFC 7518 section 5.1)."""
DEFAULT_ALGORITHM: Final = "A256GCM"
MAX_KEY_ID: Final = 128
"""Characters of a key's name; coturn's column is as wide."""

_KNOWN_TO_ALL = frozenset(
    {
        "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE",
        "MTIzNDU2Nzg5MDEyMzQ1Ng",
        "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI",
    }
)
"""How the keys begin that coturn's examples, tests and clients have."""


def read_key(text: str, algorithm: str) -> bytes:
    """The key in base64 for this algorithm; raises BadValue.

    As in coturn, a longer one is cut, and the algorithm may be written `a256gcm`; an empty one is A256GCM.
    """
    name = algorithm.strip().upper() or DEFAULT_ALGORITHM
    size = KEY_SIZES.get(name)
    if size is None:
        raise BadValue("is for another algorithm", f"write {' or '.join(KEY_SIZES)}")
    try:
        key = b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadValue("is no base64", f"write {size} bytes in base64") from None
    if len(key) < size:
        raise BadValue(f"has {len(key)} bytes", f"write {size} bytes in base64, as: openssl rand -base64 {size}")
    return key[:size]


def is_example(text: str) -> bool:
    """Whether it is a key of coturn's examples, with which anyone can make tokens."""
    return any(text.strip().startswith(known) for known in _KNOWN_TO_ALL)


def parse_time(value: object) -> float:
    """Seconds since 1970 from such a number, or from a date with or without a time, which is UTC; raises BadValue."""
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value.strip())
        except ValueError:
            pass
        else:
            return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    try:
        return parse_duration(value)
    except BadValue:
        raise BadValue("is no time", "write 2026-01-31, 2026-01-31T12:00:00Z, or seconds since 1970") from None


def format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
