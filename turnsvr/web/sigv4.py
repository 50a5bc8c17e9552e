"""AWS Signature Version 4, the receiving side: who signed a request, and whether it is what they signed."""

from __future__ import annotations

import hashlib
import hmac
import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from time import strptime
from urllib.parse import quote, unquote

from turnsvr.web.refusal import Refused

SCHEME = "AWS4-HMAC-SHA256"
_MAX_SKEW = 900.0
"""Seconds by which the signer's clock may differ from ours."""

_AUTHORIZATION = re.compile(
    rf"{SCHEME} +Credential=(?P<key>[^/,\s]+)/(?P<scope>\d{{8}}/[^/,\s]+/[^/,\s]+/aws4_request), *"
    r"SignedHeaders=(?P<headers>[a-z0-9;_-]+), *Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What the signature covers. raw_path and query as they came over the wire."""

    method: str
    raw_path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """What the Authorization header says, before anything is proven."""

    access_key: str
    scope: str
    headers: tuple[str, ...]
    signature: str


def read(request: SignedRequest) -> SignedHeader:
    """Raises Refused."""
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", "").strip())
    if match is None:
        raise Refused(401, "the Authorization header cannot be read")
    headers = tuple(match["headers"].split(";"))
    if "host" not in headers:
        raise Refused(401, "the signature does not cover the host")
    return SignedHeader(match["key"], match["scope"], headers, match["signature"])


def verify(claim: SignedHeader, request: SignedRequest, secret: str, wall_time: float) -> None:
    """Raises Refused unless the request was signed with this secret within 15 minutes of wall_time (s since 1970)."""
    date = request.headers.get("x-amz-date", "")
    try:
        signed_at = timegm(strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise Refused(401, "X-Amz-Date cannot be read") from None
    if abs(signed_at - wall_time) > _MAX_SKEW or not date.startswith(claim.scope[:8]):
        raise Refused(401, "the signature has expired, or the clock is wrong")
    expected = signature(claim, request, secret, date)
    if not hmac.compare_digest(expected, claim.signature):
        raise Refused(401, "the signature is wrong")


def signature(claim: SignedHeader, request: SignedRequest, secret: str, date: str) -> str:
    """The signature in hexadecimal that a signer of these headers, scope and date comes to."""
    canonical = "\n".join(
        (
            request.method,
            quote(unquote(request.raw_path) or "/", safe="/-_.~"),
            _canonical_query(request.query),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in claim.headers),
            "",
            ";".join(claim.headers),
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    text = "\n".join((SCHEME, date, claim.scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in claim.scope.split("/"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _canonical_query(query: str) -> str:
    pairs = (part.partition("=") for part in query.split("&") if part)
    encoded = sorted(
        (quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~")) for name, _, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in encoded)
