"""What a web service's answer about a user means. Pure; no text repeats a key or password."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from turnsvr.credentials.api import MAX_USERNAME_BYTES, Credential
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

MAX_TTL = 3_600.0
"""Seconds that an answer is remembered at most, whatever it says."""
REFUSAL_TTL = 5.0
"""Seconds that a refusal is remembered which says nothing."""
MAX_REFUSAL_TTL = 300.0
MAX_QUOTA = 1_000_000
_MAX_PASSWORD_BYTES = 1_024
_MD5 = re.compile("[0-9a-fA-F]{32}")
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_MAX_AGE = re.compile(r"max-age=\"?([0-9]{1,9})\"?", re.IGNORECASE)
_NOT_KEPT = re.compile(r"no-store|no-cache", re.IGNORECASE)

_REFUSING = (400, 403, 404, 422)
"""No such user, and for some frameworks no such user name either."""


class BadHookAnswer(Exception):
    """The service answered what it should not; the text says what, for the log."""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """A credential, or a refusal. Either password or keys are there when it is accepted."""

    accepted: bool
    ttl: float
    """Seconds that it may be remembered."""
    password: str | None = field(default=None, repr=False)
    md5_key: bytes | None = field(default=None, repr=False)
    sha256_key: bytes | None = field(default=None, repr=False)
    user: str | None = None
    quota: int | None = None

    def credentials(self, username: str, realm: str) -> tuple[Credential, ...]:
        """For this user name and realm, those that were asked for; () when refused."""
        if not self.accepted:
            return ()
        md5_key, sha256_key = self.md5_key, self.sha256_key
        if self.password is not None:
            md5_key = long_term_key(username, realm, self.password)
            sha256_key = long_term_key_sha256(username, realm, self.password)
        return (Credential(username, md5_key, sha256_key, self.user or username, self.quota),)


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> HookAnswer:
    """The answer of this status and body; header names are compared as the mapping does. Raises BadHookAnswer."""
    if status in _REFUSING:
        try:
            stated = _ttl(_json_object(body), headers)
        except BadHookAnswer:
            stated = _max_age(headers)
        return HookAnswer(False, min(REFUSAL_TTL if stated is None else stated, MAX_REFUSAL_TTL))
    if status == 401:
        raise BadHookAnswer("status 401: does it know the secret that requests are signed with?")
    if status != 200:
        raise BadHookAnswer(f"status {status}, where 200, 400, 403, 404 or 422 is an answer")
    values = _json_object(body)
    password, md5_key, sha256_key = _password(values), _key(values, "key", _MD5), _key(values, "sha256_key", _SHA256)
    if (password is None) == (md5_key is None and sha256_key is None):
        raise BadHookAnswer("neither password nor key, or both")
    ttl = _ttl(values, headers) or 0.0
    return HookAnswer(True, min(ttl, MAX_TTL), password, md5_key, sha256_key, _user(values), _quota(values))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise BadHookAnswer("a body that is no JSON") from None
    if not isinstance(values, dict):
        raise BadHookAnswer("a body that is no JSON object")
    return values


def _password(values: Mapping[str, Any]) -> str | None:
    password = values.get("password")
    if password is None:
        return None
    if not isinstance(password, str) or not 0 < len(_encoded(password)) <= _MAX_PASSWORD_BYTES:
        raise BadHookAnswer(f"a password that is no text of 1 to {_MAX_PASSWORD_BYTES} bytes")
    return password


def _key(values: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> bytes | None:
    text = values.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise BadHookAnswer(f"{name} without the right number of hex digits")
    return bytes.fromhex(text)


def _user(values: Mapping[str, Any]) -> str | None:
    user = values.get("user")
    if user is None:
        return None
    if not isinstance(user, str) or not user.isprintable() or not 0 < len(user.encode()) <= MAX_USERNAME_BYTES:
        raise BadHookAnswer("user that is no printable text")
    return user


def _quota(values: Mapping[str, Any]) -> int | None:
    quota = values.get("quota")
    if quota is None:
        return None
    if isinstance(quota, bool) or not isinstance(quota, int) or not 0 <= quota <= MAX_QUOTA:
        raise BadHookAnswer(f"quota that is no whole number from 0 to {MAX_QUOTA}")
    return quota


def _ttl(values: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    """Seconds that the answer says it may be remembered; its own word before Cache-Control."""
    ttl = values.get("ttl")
    if ttl is None:
        return _max_age(headers)
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 <= ttl < float("inf"):
        raise BadHookAnswer("ttl that is no number of seconds")
    return float(min(ttl, MAX_TTL))


def _max_age(headers: Mapping[str, str]) -> float | None:
    """By Cache-Control (RFC 9111 section 5.2.2); None when it says nothing of it."""
    stated = headers.get("Cache-Control", "")
    if _NOT_KEPT.search(stated):
        return 0.0
    found = _MAX_AGE.search(stated)
    return None if found is None else float(found[1])


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadHookAnswer("a text that is no Unicode") from None
