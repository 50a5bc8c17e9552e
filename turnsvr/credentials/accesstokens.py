"""Third-party authorization (RFC 7635): a token that an authorization server has sealed is the credential.

USERNAME is the name of the key that seals it, so the token stands for the user: limits count by its digest, and logs
and lists show key and digest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256

from turnsvr.credentials.accesstokenkeys import AccessTokenKey, BadToken
from turnsvr.credentials.api import Caller, Credential, Refusal, Source, Unavailable

_DIGEST_DIGITS = 16
_COTURN_SIZE = 16
"""Bytes of a client's key that coturn and its clients make of 20: they sign with as many as an MD5 key has."""


class AccessTokens:
    """A Source of those who show an access token; it has every key in memory and keeps nothing else."""

    anonymity = False
    md5_alone = False

    def __init__(
        self,
        keys: Iterable[AccessTokenKey],
        more: Callable[[str], AccessTokenKey | None] = lambda kid: None,
        *,
        server_name: str = "",
    ) -> None:
        """more: a key by its name that is not among `keys`; raises Unavailable while that is not known.

        server_name: as clients are told it; that of the realm when empty.
        """
        self._keys = {key.kid: key for key in keys}
        self._more = more
        self._server_name = server_name
        self._refused: tuple[str, Refusal] = "", Refusal.UNKNOWN

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        try:
            return self._find(username, realm, wall_time, caller)
        except Unavailable:
            return None

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return self._find(username, realm, wall_time, caller)

    def _find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        key = self._keys.get(username) or self._more(username)
        if key is None or caller.token is None:
            return self._refuse(username, Refusal.UNKNOWN)
        if not key.in_force(wall_time):
            return self._refuse(username, Refusal.KEY)
        try:
            contents = key.open(caller.token, self._server_name or realm)
        except BadToken:
            return self._refuse(username, Refusal.INVALID)
        left = contents.left(wall_time)
        if left <= 0:
            return self._refuse(username, Refusal.EXPIRED)
        mac_keys = contents.mac_key, contents.mac_key[:_COTURN_SIZE]
        return tuple(_credential(key, caller.token, mac_key, left) for mac_key in mac_keys)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        """That of the token which was refused last: the engine asks right behind it, and once."""
        name, reason = self._refused
        self._refused = "", Refusal.UNKNOWN
        return reason if name == username else Refusal.UNKNOWN

    def _refuse(self, username: str, reason: Refusal) -> tuple[Credential, ...]:
        self._refused = username, reason
        return ()


class ByToken:
    """One source for those who show an access token, another for all others."""

    def __init__(self, tokens: Source, others: Source) -> None:
        self.anonymity, self.md5_alone = others.anonymity, others.md5_alone
        self._tokens = tokens
        self._others = others

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        return self._of(caller).find_now(username, realm, wall_time, caller)

    def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> Awaitable[tuple[Credential, ...]]:
        return self._of(caller).find(username, realm, wall_time, caller)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return self._others.by_userhash(userhash, realm)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        reason = self._tokens.refusal(username, wall_time)
        return self._others.refusal(username, wall_time) if reason is Refusal.UNKNOWN else reason

    def _of(self, caller: Caller) -> Source:
        return self._others if caller.token is None else self._tokens


def token_id(kid: str, token: bytes) -> str:
    """What names a token in limits, logs and lists, and for revocation: its key, and a digest of it."""
    return f"{kid} (access token sha256:{sha256(token).hexdigest()[:_DIGEST_DIGITS]})"


def _credential(key: AccessTokenKey, token: bytes, mac_key: bytes, left: float) -> Credential:
    """The client's key serves both integrity attributes: it is drawn at random, not made of a password."""
    name = token_id(key.kid, token)
    return Credential(
        key.kid,
        mac_key,
        mac_key,
        name,
        label=name,
        realm=key.realm,
        valid_for=left,
    )
