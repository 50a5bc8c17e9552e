"""Time-limited credentials from a shared secret (draft-uberti-behave-turn-rest-00 section 2.2).

The user name says when it expires (timedname.py); the password is base64(HMAC-SHA1(secret, user name)). The
web application makes both with the secret; the server stores nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Awaitable, Sequence

from turnsvr.credentials.api import Caller, Credential, Refusal, answered
from turnsvr.credentials.timedname import TimedNames
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256


class SharedSecrets:
    """Time-limited credentials of one secret, or of several while one is replaced, tried in order."""

    anonymity = False
    md5_alone = False

    def __init__(self, secrets: Sequence[str], names: TimedNames | None = None) -> None:
        """names reads the user names; with the default separator when absent.

        Raises ValueError for an empty secret, with which anyone could make credentials.
        """
        if not all(secrets):
            raise ValueError("a shared secret is empty")
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._names = names or TimedNames()

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        timed = self._names.parse(username)
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

    def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> Awaitable[tuple[Credential, ...]]:
        return answered(self.find_now(username, realm, wall_time, caller))

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return self._names.refusal(username, wall_time)


def make(secret: str, user: str, ttl: float, now: float, names: TimedNames | None = None) -> tuple[str, str]:
    """User name and password good until now + ttl; both in seconds, now since 1970; user may be empty.

    Raises ValueError when the secret is empty, or the user name becomes too long or its expiry out of range.
    """
    if not secret:
        raise ValueError("the shared secret is empty")
    username = (names or TimedNames()).make(user, int(now + ttl))
    return username, password_of(secret.encode(), username)


def password_of(secret: bytes, username: str) -> str:
    """base64(HMAC-SHA1(secret, user name)), as web applications make it."""
    return b64encode(hmac.digest(secret, username.encode(), hashlib.sha1)).decode()
