"""Static users: a name with a password, or with a key so that no password stands in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from turnsvr.credentials.api import Credential, Refusal
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256, userhash

_KEY_PREFIX = "0x"
_KEY = re.compile(r"0x(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{64})")
_MAX_HASHED_REALMS = 64


class StaticUsers:
    """Users of one server, each with a password or a key as `is_password_or_key` takes it."""

    anonymity = True

    def __init__(self, users: Mapping[str, str]) -> None:
        """Raises ValueError for a password that begins as a key and is none."""
        for name, password in users.items():
            if not is_password_or_key(password):
                raise ValueError(f"user {name!r}: neither a password nor a key of 32 or 64 hex digits")
        self._users = dict(users)
        self._names_by_hash: dict[str, dict[bytes, str]] = {}

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        password = self._users.get(username)
        if password is None:
            return ()
        return (_credential(username, realm, password),)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return self._hashes(realm).get(userhash)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN

    def _hashes(self, realm: str) -> dict[bytes, str]:
        names = self._names_by_hash.get(realm)
        if names is None:
            if len(self._names_by_hash) >= _MAX_HASHED_REALMS:
                del self._names_by_hash[next(iter(self._names_by_hash))]
            names = {userhash(name, realm): name for name in self._users}
            self._names_by_hash[realm] = names
        return names


def is_password_or_key(text: str) -> bool:
    """Whether text can stand for a user: any password, or `0x` and 32 (MD5) or 64 (SHA-256) hex digits.

    A text that begins with `0x` is a key or nothing: a mistyped key never serves as a password.
    """
    return text != "" and (not text.startswith(_KEY_PREFIX) or _KEY.fullmatch(text) is not None)


def _credential(username: str, realm: str, password: str) -> Credential:
    if not password.startswith(_KEY_PREFIX):
        md5_key = long_term_key(username, realm, password)
        return Credential(username, md5_key, long_term_key_sha256(username, realm, password), username)
    key = bytes.fromhex(password.removeprefix(_KEY_PREFIX))
    if len(key) == 16:
        return Credential(username, key, None, username)
    return Credential(username, None, key, username)
