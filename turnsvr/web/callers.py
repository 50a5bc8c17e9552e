"""Who calls: API keys, the signatures of AWS clients, and the public where the settings allow that."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field

from turnsvr.config.websettings import WebSettings
from turnsvr.web import sigv4
from turnsvr.web.refusal import Refused

PUBLIC = "public"
"""Name and tag of callers without a key."""


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """A holder of an API key, or the public: who may have credentials."""

    name: str
    tag: str
    ttl: float
    """Longest lifetime of its credentials in seconds."""
    quota: int | None = None
    origins: tuple[str, ...] = ()
    """Origins from which a browser may use its key; empty for all that may call at all."""
    keyed: bool = True


@dataclass(frozen=True, slots=True)
class _Key:
    caller: ApiCaller
    digest: bytes
    secret: str | None = field(repr=False)


class Callers:
    """The callers that the settings name."""

    def __init__(self, settings: WebSettings) -> None:
        self._keys = tuple(
            _Key(
                ApiCaller(key.name, key.tag or key.name, key.ttl or settings.ttl, key.quota, key.origins),
                bytes.fromhex(key.key_hash) if key.key_hash else _digest(key.key.get_secret_value() if key.key else ""),
                key.key.get_secret_value() if key.key else None,
            )
            for key in settings.keys
        )
        self._public = ApiCaller(PUBLIC, PUBLIC, settings.public_ttl, keyed=False) if settings.public else None

    def with_key(self, offered: str | None) -> ApiCaller:
        """The caller whose key this is, or the public one for no key at all; raises Refused."""
        if offered is None:
            if self._public is None:
                raise Refused(401, "an API key is needed")
            return self._public
        digest = _digest(offered)
        found: ApiCaller | None = None
        for key in self._keys:
            # Every key is compared, so that the time tells nothing about which one nearly was it.
            if hmac.compare_digest(digest, key.digest):
                found = key.caller
        if found is None:
            raise Refused(401, "the API key is not known")
        return found

    def with_signature(self, request: sigv4.SignedRequest, wall_time: float) -> ApiCaller:
        """The caller who signed this request as AWS clients do (Signature Version 4); raises Refused."""
        claim = sigv4.read(request)
        for key in self._keys:
            if key.caller.name == claim.access_key and key.secret is not None:
                sigv4.verify(claim, request, key.secret, wall_time)
                return key.caller
        raise Refused(401, "the access key is not known, or only its hash is")


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of `Authorization: Bearer …`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def basic(headers: Mapping[str, str]) -> str | None:
    """The password of `Authorization: Basic …` (RFC 7617); the user name is for people. Raises Refused."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = b64decode(token.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Refused(400, "the Authorization header cannot be read") from None
    return password if colon else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
