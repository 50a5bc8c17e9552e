"""JSON Web Tokens as credentials (RFC 7519): the token is the user name.

A token that a shared key signed has the password base64(HMAC-SHA1(key, token)), as if it were a time-limited user
name: the token alone is of no use to one who reads it. One that a public key verifies is its own password, since the
server has no secret in common with who made it; it is taken from clients over TLS alone, unless the operator wants
otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import jwt

from turnsvr.credentials.api import MAX_USERNAME_BYTES, Caller, Credential, Refusal, Unavailable
from turnsvr.credentials.keyrings import KeyRing
from turnsvr.credentials.questions import Memory
from turnsvr.credentials.shared_secret import password_of
from turnsvr.credentials.tokenkeys import TokenKey
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

_MAX_VERIFIED = 10_000
"""Good tokens that are remembered until they expire; the oldest goes."""
_MAX_REASONS = 1_000
_REASON_SECONDS = 60.0
_MAX_USER_CHARACTERS = 256
_MAX_QUOTA = 1_000_000
_CLOCK_SKEW = 30.0
"""Seconds that the issuer's clock may be ahead of ours (nbf)."""

_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""Three parts in base64url, of which the first begins as JSON objects do; none that shown() would not hide."""

_CHECKS: Any = {
    "require": ["exp"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""Checks that PyJWT leaves to us: those that go by the clock, and of claims that mean nothing here."""


class _Verified(NamedTuple):
    """A token whose signature and claims are good."""

    keys: tuple[TokenKey, ...]
    """All that were known at the time: when they change, it has to be verified again."""
    key: TokenKey
    expiry: float
    user: str
    quota: int | None


class _Refused(Exception):
    def __init__(self, reason: Refusal) -> None:
        self.reason = reason


class Tokens:
    """A Source of tokens, for every realm. Immediate, but for tokens that name a key which is not known."""

    anonymity = False
    md5_alone = False

    def __init__(
        self,
        keys: KeyRing,
        algorithms: Collection[str],
        *,
        issuer: str | None = None,
        audience: str | None = None,
        user_claim: str = "sub",
        quota_claim: str = "turn_allocations",
        secure_only: bool = True,
    ) -> None:
        """secure_only: take tokens of public keys from TLS clients alone."""
        self._keys = keys
        self._algorithms = frozenset(algorithms)
        self._issuer = issuer
        self._audience = audience
        self._user_claim = user_claim
        self._quota_claim = quota_claim
        self._secure_only = secure_only
        self._verified: Memory[str, _Verified] = Memory(_MAX_VERIFIED)
        self._reasons: Memory[str, Refusal] = Memory(_MAX_REASONS)

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        if len(username) > MAX_USERNAME_BYTES or not _TOKEN.fullmatch(username):
            return ()
        verified = self._verified.get(username, wall_time)
        if verified is None or verified.keys is not self._keys.current:
            return None
        if self._secure_only and not caller.secure and verified.key.shared is None:
            self._note(username, Refusal.INSECURE, wall_time)
            return ()
        return (_credential(username, realm, verified),)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        found = self.find_now(username, realm, wall_time, caller)
        if found is None:
            try:
                await self._verify(username, wall_time)
            except _Refused as refused:
                self._note(username, refused.reason, wall_time)
            else:
                found = self.find_now(username, realm, wall_time, caller)
        return found or ()

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return self._reasons.get(username, wall_time) or Refusal.UNKNOWN

    def _note(self, token: str, reason: Refusal, wall_time: float) -> None:
        """Keep the reason, for `refusal`."""
        self._reasons.put(token, reason, wall_time + _REASON_SECONDS)

    async def _verify(self, token: str, wall_time: float) -> None:
        """Remember it as verified; raises _Refused and Unavailable."""
        try:
            header = jwt.get_unverified_header(token)
            keys = await self._fitting(header)
            key, claims = self._check(token, header["alg"], keys)
        except jwt.PyJWTError:
            raise _Refused(Refusal.INVALID) from None
        expiry, user, quota = self._read(claims, wall_time)
        self._verified.put(token, _Verified(self._keys.current, key, expiry, user, quota), expiry)

    async def _fitting(self, header: dict[str, Any]) -> list[TokenKey]:
        """The keys that may have signed a token with this header."""
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms or "crit" in header:
            raise _Refused(Refusal.INVALID)
        if not (fitting := self._named(header)):
            await self._keys.look_again()
            fitting = self._named(header)
        if not self._keys.current:
            raise Unavailable("the keys of tokens are not known yet")
        return fitting

    def _named(self, header: dict[str, Any]) -> list[TokenKey]:
        kid = header.get("kid")
        return [
            key
            for key in self._keys.current
            if header["alg"] in key.algorithms and (kid is None or key.kid is None or key.kid == kid)
        ]

    def _check(self, token: str, algorithm: str, keys: Collection[TokenKey]) -> tuple[TokenKey, dict[str, Any]]:
        """The key that signed it, and its claims; issuer and audience are right. Raises jwt.PyJWTError."""
        for key in keys:
            try:
                claims = jwt.decode(
                    token, key.value, [algorithm], options=_CHECKS, issuer=self._issuer, audience=self._audience
                )
            except jwt.InvalidSignatureError:
                continue
            return key, claims
        raise jwt.InvalidSignatureError

    def _read(self, claims: dict[str, Any], wall_time: float) -> tuple[float, str, int | None]:
        """Expiry, user and quota, all of which must make sense."""
        expiry, not_before = claims["exp"], claims.get("nbf", -math.inf)
        user, quota = claims.get(self._user_claim), claims.get(self._quota_claim)
        if not _is_number(expiry) or not _is_number(not_before) or not math.isfinite(expiry):
            raise _Refused(Refusal.INVALID)
        if expiry <= wall_time:
            raise _Refused(Refusal.EXPIRED)
        if not_before > wall_time + _CLOCK_SKEW:
            raise _Refused(Refusal.INVALID)
        if not isinstance(user, str) or not 0 < len(user) <= _MAX_USER_CHARACTERS or not user.isprintable():
            raise _Refused(Refusal.INVALID)
        if quota is not None and not (isinstance(quota, int) and _is_number(quota) and 0 <= quota <= _MAX_QUOTA):
            raise _Refused(Refusal.INVALID)
        return expiry, user, quota


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _credential(token: str, realm: str, verified: _Verified) -> Credential:
    shared = verified.key.shared
    password = token if shared is None else password_of(shared, token)
    return Credential(
        token,
        long_term_key(token, realm, password),
        long_term_key_sha256(token, realm, password),
        verified.user,
        verified.quota,
        label=f"{verified.user} (token)",
    )
