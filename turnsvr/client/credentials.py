"""Long-term credentials from the client's side: what a request is signed with (RFC 8489 section 9.2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from turnsvr.client.transaction import ClientError
from turnsvr.stun import integrity
from turnsvr.stun.attributes import (
    ACCESS_TOKEN,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    NONCE,
    PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS,
    REALM,
    THIRD_PARTY_AUTHORIZATION,
    USERHASH,
    USERNAME,
    PasswordAlgorithm,
)
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Class, Message, Method

MD5 = 0x0001
SHA256 = 0x0002
_NONCE_COOKIE = b"obMatJos2"
_ALGORITHMS_BITS = 0x800001
"""Password algorithms. RFC 8489 numbers bits from the left, its test vector from the right: either counts."""
_ANONYMITY_BITS = 0x400002


class BidDown(ClientError):
    """The nonce promises PASSWORD-ALGORITHMS and none came: they were removed on the way (RFC 8489 section 9.2.1)."""


class NoChallenge(ClientError):
    """A 401 or 438 without REALM or NONCE, or with broken ones, cannot be answered."""


class Security(Enum):
    """What the client makes of PASSWORD-ALGORITHMS."""

    BEST = "best"
    """As RFC 8489 wants it: the first known of the server's algorithms, and MESSAGE-INTEGRITY-SHA256."""
    CLASSIC = "classic"
    """As RFC 5389 clients do: MD5 and MESSAGE-INTEGRITY, whatever the server offers."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What an authorization server gives to a client (RFC 7635 appendix B): the token, and the key in it."""

    value: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """User name and password as the user has them; with an access token the name of its key (kid), and no password."""

    username: str
    password: str = field(repr=False)
    security: Security = Security.BEST
    anonymous: bool = False
    """Send USERHASH instead of USERNAME where the server can resolve it (RFC 8489 section 9.2)."""
    token: AccessToken | None = None
    """Used where the server offers third-party authorization."""


@dataclass(frozen=True, slots=True)
class LiveLogin:
    """A login that has met its server: the realm, the nonce of the moment, and the key."""

    login: Login
    realm: str
    nonce: bytes = field(repr=False)
    algorithms: tuple[PasswordAlgorithm, ...]
    """What the server offered and goes back to it unchanged; empty for MESSAGE-INTEGRITY."""
    algorithm: int
    key: bytes = field(repr=False)
    userhash: bytes | None
    token: bytes | None = field(default=None, repr=False)
    """Goes along with Allocate and Refresh (RFC 7635 section 10)."""

    def sign(self, request: Message) -> bytes:
        """The request with its credentials, encoded."""
        if self.userhash is not None:
            request.add(USERHASH, self.userhash)
        else:
            request.add(USERNAME, self.login.username)
        request.add(REALM, self.realm).add(NONCE, self.nonce)
        if self.token is not None and request.method in (Method.ALLOCATE, Method.REFRESH):
            request.add(ACCESS_TOKEN, self.token)
        if not self.algorithms:
            return request.encode(key=self.key, fingerprint=True)
        request.add(PASSWORD_ALGORITHMS, self.algorithms)
        request.add(PASSWORD_ALGORITHM, PasswordAlgorithm(self.algorithm))
        return request.encode(sha256_key=self.key, fingerprint=True)

    def accepts(self, response: Message) -> bool:
        """Whether the response is to be believed: a success only with the right integrity.

        An error without any is taken, as some servers do not sign theirs; the worst it can do is end the attempt.
        """
        if self.algorithms and MESSAGE_INTEGRITY_SHA256 in response:
            return response.integrity_sha256_ok(self.key)
        if not self.algorithms and MESSAGE_INTEGRITY in response:
            return response.integrity_ok(self.key)
        return response.message_class is Class.ERROR


def challenged(login: Login, response: Message, before: LiveLogin | None = None) -> LiveLogin:
    """The session to answer a 401 or 438 with; a 438 may leave out the realm.

    Raises NoChallenge or BidDown.
    """
    try:
        nonce = response.get(NONCE)
        realm = response.get(REALM) or (before.realm if before else None)
        offered = response.get(PASSWORD_ALGORITHMS) or ()
    except MalformedMessage as error:
        raise NoChallenge(f"the server asks for credentials with {error}") from error
    if nonce is None or realm is None:
        raise NoChallenge("the server asks for credentials without REALM and NONCE")
    features = _features(nonce)
    if login.security is Security.BEST and features & _ALGORITHMS_BITS and not offered:
        raise BidDown("the nonce promises PASSWORD-ALGORITHMS, which are missing")
    known = next((item.number for item in offered if item.number in _KEYS), None)
    if login.security is Security.CLASSIC or known is None:
        offered = ()
    algorithm = known if known is not None and offered else MD5
    userhash = None
    if login.anonymous and features & _ANONYMITY_BITS:
        userhash = integrity.userhash(login.username, realm)
    if login.token is not None and THIRD_PARTY_AUTHORIZATION in response:
        return LiveLogin(login, realm, nonce, offered, algorithm, login.token.key, None, login.token.value)
    key = _KEYS[algorithm](login.username, realm, login.password)
    return LiveLogin(login, realm, nonce, offered, algorithm, key, userhash)


_KEYS: dict[int, Callable[[str, str, str], bytes]] = {
    MD5: integrity.long_term_key,
    SHA256: integrity.long_term_key_sha256,
}


def _features(nonce: bytes) -> int:
    """The 24 security feature bits that follow the nonce cookie; 0 without one."""
    if not nonce.startswith(_NONCE_COOKIE):
        return 0
    encoded = nonce[len(_NONCE_COOKIE) : len(_NONCE_COOKIE) + 4]
    try:
        return int.from_bytes(base64.b64decode(encoded, validate=True), "big")
    except (binascii.Error, ValueError):
        return 0
