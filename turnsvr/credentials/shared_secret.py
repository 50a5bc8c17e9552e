"""Time-limited credentials from a shared secret (draft-uberti-behave-turn-rest-00 section 2.2).

The user name is `EXPIRY` or `EXPIRY:user`, EXPIRY in seconds since 1970; the password is
base64(HMAC-SHA1(secret, user name)). Whoever holds the secret makes them; the server stores nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from turnsvr.credentials.api import MAX_USERNAME_BYTES, Credential, Refusal
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

_SEPARATOR = ":"
_MAX_EXPIRY_DIGITS = 12


class TimedName(NamedTuple):
    """A time-limited user name taken apart; expiry in seconds since 1970, user empty when there is none."""

    expiry: int
    user: str


class SharedSecrets:
    """Time-limited credentials of one secret, or of several while one is replaced, tried in order."""

    anonymity = False
    md5_alone = False

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises ValueError for an empty secret, with which anyone could make credentials."""
        if not all(secrets):
            raise ValueError("a shared secret is empty")
        self._secrets = tuple(secret.encode() for secret in secrets)

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        timed = parse(username)
        if timed is None or timed.expiry <= wall_time:
            return ()
        quota_user = timed.user or username
        passwords = (password_of(secret, username) for secret in self._secrets)
        return tuple(
            Credential(
                username,
                long_term_key(username, realm, password),
                long_term_key_sha256(username, realm, password),
                quota_user,
            )
            for password in passwords
        )

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        timed = parse(username)
        return Refusal.EXPIRED if timed is not None and timed.expiry <= wall_time else Refusal.UNKNOWN


def parse(username: str) -> TimedName | None:
    """The parts of `EXPIRY` or `EXPIRY:user`; None for any other name.

    EXPIRY is 1 to 12 ASCII digits (the year 33658 and beyond is a mistake or an attempt), without a sign.
    """
    digits, _, user = username.partition(_SEPARATOR)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_EXPIRY_DIGITS):
        return None
    try:
        size = len(username.encode())
    except UnicodeEncodeError:
        return None
    return TimedName(int(digits), user) if size <= MAX_USERNAME_BYTES else None


def make(secret: str, user: str, ttl: float, now: float) -> tuple[str, str]:
    """User name and password good until now + ttl; both in seconds, now since 1970; user may be empty.

    Raises ValueError when the secret is empty, or the user name becomes too long or its expiry out of range.
    """
    if not secret:
        raise ValueError("the shared secret is empty")
    expiry = str(int(now + ttl))
    username = f"{expiry}{_SEPARATOR}{user}" if user else expiry
    if parse(username) is None:
        raise ValueError(f"no user name of at most {MAX_USERNAME_BYTES} bytes with a sensible expiry")
    return username, password_of(secret.encode(), username)


def password_of(secret: bytes, username: str) -> str:
    """base64(HMAC-SHA1(secret, user name)), as web applications make it."""
    return b64encode(hmac.digest(secret, username.encode(), hashlib.sha1)).decode()
