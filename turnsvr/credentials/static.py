"""Static users: a name with a password, or with a key so that no password stands in the file."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import lru_cache

from turnsvr.config.units import parse_hex_key
from turnsvr.credentials.api import Caller, Credential, Refusal, answered
from turnsvr.stun import integrity

_MAX_HASHED_REALMS = 64
_MAX_KEPT = 4096
"""Users whose keys are kept rather than made again."""
_MD5_SIZE = 16


class StaticUsers:
    """Users by name, each with a password or with `0x` and the hex MD5 or SHA-256 of user:realm:password."""

    anonymity = True

    def __init__(self, users: Mapping[str, str]) -> None:
        """Raises BadValue (a ValueError) for a password that begins with `0x` and is no key."""
        self._secrets = {name: parse_hex_key(password) or password for name, password in users.items()}
        self._credential = lru_cache(_MAX_KEPT)(_credential)
        self._names_by_hash: dict[str, dict[bytes, str]] = {}
        self.md5_alone = any(isinstance(each, bytes) and len(each) == _MD5_SIZE for each in self._secrets.values())

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        secret = self._secrets.get(username)
        return () if secret is None else (self._credential(username, realm, secret),)

    def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> Awaitable[tuple[Credential, ...]]:
        return answered(self.find_now(username, realm, wall_time, caller))

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return self._names(realm).get(userhash)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN

    def _names(self, realm: str) -> dict[bytes, str]:
        """User names of a realm by their USERHASH, made when first asked for; the oldest goes when full."""
        names = self._names_by_hash.get(realm)
        if names is None:
            if len(self._names_by_hash) >= _MAX_HASHED_REALMS:
                del self._names_by_hash[next(iter(self._names_by_hash))]
            names = {integrity.userhash(name, realm): name for name in self._secrets}
            self._names_by_hash[realm] = names
        return names


def _credential(username: str, realm: str, secret: str | bytes) -> Credential:
    if isinstance(secret, str):
        md5_key = integrity.long_term_key(username, realm, secret)
        sha256_key = integrity.long_term_key_sha256(username, realm, secret)
        return Credential(username, md5_key, sha256_key, username)
    if len(secret) == _MD5_SIZE:
        return Credential(username, secret, None, username)
    return Credential(username, None, secret, username)
