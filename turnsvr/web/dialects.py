"""The shapes in which applications take a list of ICE servers, and those in which they are refused. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from turnsvr.web.issuer import Issued
from turnsvr.web.refusal import Refused

Json = dict[str, Any] | list[Any]


def native(issued: Issued) -> dict[str, Any]:
    """What `new RTCPeerConnection()` takes, and `ttl` in seconds."""
    policy = {"iceTransportPolicy": "relay"} if issued.relay_only else {}
    return {"iceServers": _servers(issued), "ttl": issued.ttl, **policy}


def uberti(issued: Issued) -> dict[str, Any]:
    """draft-uberti-behave-turn-rest-00 section 2.2."""
    return {"username": issued.username, "password": issued.password, "ttl": issued.ttl, "uris": issued.turn}


def twilio(issued: Issued, account: str, wall_time: float) -> dict[str, Any]:
    """Twilio's Token resource: one URL an entry, under two names, and the lifetime as a text."""
    date = formatdate(wall_time).replace("-0000", "+0000")
    plain: list[dict[str, str]] = [{"url": url, "urls": url} for url in issued.stun]
    relays = [
        {"url": url, "urls": url, "username": issued.username, "credential": issued.password} for url in issued.turn
    ]
    return {
        "account_sid": account,
        "date_created": date,
        "date_updated": date,
        "ice_servers": plain + relays,
        "username": issued.username,
        "password": issued.password,
        "ttl": str(issued.ttl),
    }


def cloudflare(issued: Issued) -> dict[str, Any]:
    """Cloudflare's generate-ice-servers."""
    return {"iceServers": _servers(issued)}


def cloudflare_single(issued: Issued) -> dict[str, Any]:
    """Cloudflare's older generate, with one entry in place of a list."""
    return {"iceServers": _server(issued, issued.stun + issued.turn)}


def metered(issued: Issued) -> list[Any]:
    """Metered: a bare list, one URL an entry."""
    return [{"urls": url} for url in issued.stun] + [_server(issued, url) for url in issued.turn]


def xirsys(issued: Issued, *, urls: bool) -> dict[str, Any]:
    """Xirsys: one entry with a list of URLs, or without `"format": "urls"` an entry for each."""
    if urls:
        return {"s": "ok", "v": {"iceServers": _server(issued, issued.stun + issued.turn)}}
    plain: list[dict[str, str]] = [{"url": url} for url in issued.stun]
    relays = [{"url": url, "username": issued.username, "credential": issued.password} for url in issued.turn]
    return {"s": "ok", "v": {"iceServers": plain + relays}}


def aws(issued: Issued) -> dict[str, Any]:
    """GetIceServerConfig of Kinesis Video Streams; it lists relays alone."""
    server = {"Username": issued.username, "Password": issued.password, "Ttl": issued.ttl, "Uris": issued.turn}
    return {"IceServerList": [server]}


def matrix(issued: Issued) -> dict[str, Any]:
    """Matrix client-server API, `GET /voip/turnServer`."""
    return {"username": issued.username, "password": issued.password, "uris": issued.turn, "ttl": issued.ttl}


def links(issued: Issued) -> str:
    """The Link header of WHIP and WHEP (RFC 9725 section 4.6): a value for each URL, in one line."""
    secret = (
        f'; username="{_quoted(issued.username)}"; credential="{_quoted(issued.password)}"; credential-type="password"'
    )
    plain = [f'<{url}>; rel="ice-server"' for url in issued.stun]
    return ", ".join([*plain, *(f'<{url}>; rel="ice-server"{secret}' for url in issued.turn)])


def _quoted(text: str) -> str:
    """Inside a quoted string of HTTP (RFC 9110 section 5.6.4); what a header cannot hold becomes `?`."""
    return text.encode("ascii", "replace").decode().replace("\\", "\\\\").replace('"', '\\"')


def _servers(issued: Issued) -> list[dict[str, Any]]:
    relays = _server(issued, issued.turn)
    return [{"urls": issued.stun}, relays] if issued.stun else [relays]


def _server(issued: Issued, urls: str | list[str]) -> dict[str, Any]:
    return {"urls": urls, "username": issued.username, "credential": issued.password}


def _native_error(refused: Refused) -> Json:
    return {"error": refused.text}


def _twilio_error(refused: Refused) -> Json:
    code = {401: 20003, 403: 20003, 429: 20429, 400: 20001}.get(refused.status, 20500)
    return {"code": code, "message": refused.text, "more_info": "", "status": refused.status}


def _cloudflare_error(refused: Refused) -> Json:
    return {"success": False, "errors": [{"code": refused.status, "message": refused.text}], "result": None}


def _xirsys_error(refused: Refused) -> Json:
    return {"s": "error", "v": refused.text}


def _aws_error(refused: Refused) -> Json:
    return {"Message": refused.text}


def _matrix_error(refused: Refused) -> Json:
    codes = {401: "M_UNKNOWN_TOKEN", 403: "M_FORBIDDEN", 429: "M_LIMIT_EXCEEDED", 400: "M_INVALID_PARAM"}
    body: dict[str, Any] = {"errcode": codes.get(refused.status, "M_UNKNOWN"), "error": refused.text}
    if refused.retry_after is not None:
        body["retry_after_ms"] = 1_000 * refused.retry_after
    return body


_AWS_ERRORS = {400: "InvalidArgumentException", 401: "NotAuthorizedException", 403: "NotAuthorizedException"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of application is told that it gets nothing. The name is a label of metrics."""

    name: str
    error: Callable[[Refused], Json] = _native_error

    def headers(self, refused: Refused) -> Mapping[str, str]:
        headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
        if refused.status == 401:
            # Not Basic where pages ask: a browser would open a dialogue of its own.
            scheme = "Basic" if self.name in ("twilio", "xirsys") else "Bearer"
            headers["WWW-Authenticate"] = f'{scheme} realm="turnsvr"'
        if self.name == "aws":
            headers["x-amzn-ErrorType"] = _AWS_ERRORS.get(refused.status, "ClientLimitExceededException")
        return headers


NATIVE = Dialect("native")
UBERTI = Dialect("uberti")
TWILIO = Dialect("twilio", _twilio_error)
CLOUDFLARE = Dialect("cloudflare", _cloudflare_error)
METERED = Dialect("metered")
XIRSYS = Dialect("xirsys", _xirsys_error)
AWS = Dialect("aws", _aws_error)
MATRIX = Dialect("matrix", _matrix_error)
WHIP = Dialect("whip")
