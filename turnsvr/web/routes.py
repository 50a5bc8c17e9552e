"""The endpoints that give out lists of ICE servers, one for each dialect."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from turnsvr.config.websettings import WebSettings
from turnsvr.web import dialects, sigv4
from turnsvr.web.callers import ApiCaller, basic, bearer
from turnsvr.web.endpoints import Endpoint, Parameter, WholeSeconds
from turnsvr.web.issuer import Issued, Issuer
from turnsvr.web.refusal import Refused

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_NO_STORE = {"Cache-Control": "no-store"}

_TTL = WholeSeconds("ttl", "Lifetime in seconds; cut to what the caller may have.")
_USER = Parameter("user", "The user that the credentials are for; random when absent.", 128)
_KEY = Parameter("key", "The API key, in place of the Authorization header.")
_REVOKED = Parameter("username", "A user name that was given out.", 508)
_ACCOUNT = Parameter("account", "It comes back in the answer.", 64)
_KEY_ID = Parameter("key_id", "Anything.")
_API_KEY = Parameter("apiKey", "The API key.")
_CHANNEL = Parameter("channel", "Anything.")
_ENDPOINT = Parameter("endpoint", "Anything: the endpoint at the media server.")
_ACCESS_TOKEN = Parameter("access_token", "The API key, in place of the Authorization header.")


class IceRequests:
    """What every dialect does with a request: find its caller, admit it, issue credentials."""

    def __init__(self, issuer: Issuer, settings: WebSettings) -> None:
        self._issuer = issuer
        self._settings = settings

    def with_key(self, request: Request, offered: str | None) -> ApiCaller:
        """The caller of this key, admitted; raises Refused."""
        return self._admit(request, lambda: self._issuer.callers.with_key(offered))

    def with_signature(self, request: Request, signed: sigv4.SignedRequest) -> ApiCaller:
        """The caller who signed the request, admitted; raises Refused."""
        return self._admit(request, lambda: self._issuer.callers.with_signature(signed, time.time()))

    def issue(self, request: Request, caller: ApiCaller, user: str | None, ttl: float | None) -> Issued:
        """Credentials for a user of the caller; raises Refused."""
        host = self._settings.host or host_of(request)
        issued = self._issuer.issue(caller, host, user, ttl, time.time())
        self._issuer.outcomes[request.state.dialect.name, "ok"] += 1
        return issued

    def issue_with_key(
        self, request: Request, offered: str | None, user: str | None = None, ttl: float | None = None
    ) -> Issued:
        """All of it for a caller with a key, or without one."""
        return self.issue(request, self.with_key(request, offered), user, ttl)

    def _admit(self, request: Request, find: Callable[[], ApiCaller]) -> ApiCaller:
        """Admit the caller. An address that offered too many wrong keys is refused, even with a right one."""
        client, now = request.client.host if request.client else "", time.monotonic()
        self._issuer.check_address(client, now)
        try:
            caller = find()
        except Refused:
            self._issuer.count_wrong_key(client, now)
            raise
        self._issuer.admit(caller, request.headers.get("origin"), client, now)
        return caller


def endpoints(issuer: Issuer, settings: WebSettings) -> tuple[Endpoint, ...]:
    """Every dialect but the one that lives at /: see uberti()."""
    requests = IceRequests(issuer, settings)
    dialects_of = (_native, _twilio, _cloudflare, _metered, _xirsys, _aws, _matrix, _whip)
    return tuple(each for dialect in dialects_of for each in dialect(requests, issuer))


def _native(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def ice_servers(request: Request) -> Response:
        """The key stands in `Authorization: Bearer`, as the password of `Basic`, or in the query."""
        user, ttl = _USER.of(request), _TTL.seconds(request)
        return _answer(dialects.native(requests.issue_with_key(request, _any_key(request), user, ttl)))

    async def revoke(request: Request) -> Response:
        """Its sessions end, and it is refused from now on."""
        username = _REVOKED.of(request) or ""
        issuer.revoke(requests.with_key(request, _any_key(request)), username, time.time())
        return Response(status_code=204)

    return (
        Endpoint(
            "GET",
            "/ice-servers",
            ice_servers,
            "What new RTCPeerConnection() takes",
            dialects.NATIVE,
            parameters=(_USER, _TTL, _KEY),
            answer="native",
        ),
        Endpoint(
            "DELETE",
            "/ice-servers/{username:path}",
            revoke,
            "Revoke a user name",
            dialects.NATIVE,
            parameters=(_REVOKED, _KEY),
            status=204,
        ),
    )


def uberti(issuer: Issuer, settings: WebSettings) -> Callable[[Request], JSONResponse]:
    """Answers `GET /?service=turn&username=U&key=K`."""
    requests = IceRequests(issuer, settings)

    def answer(request: Request) -> JSONResponse:
        request.state.dialect = dialects.UBERTI
        query = request.query_params
        if query.get("service") != "turn":
            raise Refused(400, "service is turn")
        issued = requests.issue_with_key(request, query.get("key") or bearer(request.headers), query.get("username"))
        return _answer(dialects.uberti(issued))

    return answer


def _twilio(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def tokens(request: Request) -> Response:
        """The key is the password of Basic authentication. Form: `Ttl`."""
        account = _ACCOUNT.of(request) or ""
        caller = requests.with_key(request, basic(request.headers))
        form = parse_qs((await request.body()).decode("latin-1"))
        ttl = _number(form["Ttl"][-1]) if "Ttl" in form else None
        issued = requests.issue(request, caller, None, ttl)
        return _answer(dialects.twilio(issued, account, time.time()), 201)

    return (
        Endpoint(
            "POST",
            "/2010-04-01/Accounts/{account}/Tokens.json",
            tokens,
            "Twilio's tokens",
            dialects.TWILIO,
            parameters=(_ACCOUNT,),
            body="twilio_asks",
            answer="twilio",
            status=201,
        ),
    )


def _cloudflare(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    prefix = "/v1/turn/keys/{key_id}/credentials"

    async def issue(request: Request) -> Issued:
        caller = requests.with_key(request, bearer(request.headers))
        body = await _object(request)
        identifier = body.get("customIdentifier")
        user = None if identifier is None else str(identifier)
        return requests.issue(request, caller, user, _number(body.get("ttl")))

    async def generate_ice_servers(request: Request) -> Response:
        """The key is the Bearer token. Body: `{"ttl": seconds, "customIdentifier": user}`."""
        return _answer(dialects.cloudflare(await issue(request)), 201)

    async def generate(request: Request) -> Response:
        return _answer(dialects.cloudflare_single(await issue(request)), 201)

    async def revoke(request: Request) -> Response:
        username = _REVOKED.of(request) or ""
        issuer.revoke(requests.with_key(request, bearer(request.headers)), username, time.time())
        return Response(status_code=204)

    return (
        Endpoint(
            "POST",
            f"{prefix}/generate-ice-servers",
            generate_ice_servers,
            "Cloudflare's list",
            dialects.CLOUDFLARE,
            parameters=(_KEY_ID,),
            body="cloudflare_asks",
            answer="cloudflare",
            status=201,
        ),
        Endpoint(
            "POST",
            f"{prefix}/generate",
            generate,
            "Cloudflare's older form, one entry",
            dialects.CLOUDFLARE,
            parameters=(_KEY_ID,),
            body="cloudflare_asks",
            answer="cloudflare_single",
            status=201,
        ),
        Endpoint(
            "POST",
            f"{prefix}/{{username:path}}/revoke",
            revoke,
            "Cloudflare's revocation",
            dialects.CLOUDFLARE,
            parameters=(_KEY_ID, _REVOKED),
            status=204,
        ),
    )


def _metered(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def credentials(request: Request) -> Response:
        return _answer(dialects.metered(requests.issue_with_key(request, _API_KEY.of(request))))

    return (
        Endpoint(
            "GET",
            "/api/v1/turn/credentials",
            credentials,
            "Metered's bare list",
            dialects.METERED,
            parameters=(_API_KEY,),
            answer="metered",
        ),
    )


def _xirsys(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def turn(request: Request) -> Response:
        """The key is the password of Basic authentication. Body: `{"format": "urls", "expire": seconds}`."""
        caller = requests.with_key(request, basic(request.headers))
        body = await _object(request)
        user = request.query_params.get("k") or body.get("k")
        issued = requests.issue(request, caller, None if user is None else str(user), _number(body.get("expire")))
        return _answer(dialects.xirsys(issued, urls=body.get("format") == "urls"))

    return (
        Endpoint(
            "PUT",
            "/_turn/{channel:path}",
            turn,
            "Xirsys's list",
            dialects.XIRSYS,
            parameters=(_CHANNEL,),
            body="xirsys_asks",
            answer="xirsys",
        ),
    )


def _aws(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def get_ice_server_config(request: Request) -> Response:
        """Signed with Signature Version 4 by the key's name and the key, or with the key as Bearer token."""
        raw = await request.body()
        if request.headers.get("authorization", "").startswith(sigv4.SCHEME):
            caller = requests.with_signature(request, _signed(request, raw))
        else:
            caller = requests.with_key(request, bearer(request.headers))
        body = _parsed_object(raw)
        if body.get("Service", "TURN") != "TURN":
            raise Refused(400, "Service is TURN")
        user = body.get("Username") or body.get("ClientId")
        return _answer(dialects.aws(requests.issue(request, caller, None if user is None else str(user), None)))

    return (
        Endpoint(
            "POST",
            "/v1/get-ice-server-config",
            get_ice_server_config,
            "GetIceServerConfig of AWS Kinesis Video Streams",
            dialects.AWS,
            body="aws_asks",
            answer="aws",
        ),
    )


def _matrix(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def turn_server(request: Request) -> Response:
        """The key is the access token."""
        key = bearer(request.headers) or _ACCESS_TOKEN.of(request)
        return _answer(dialects.matrix(requests.issue_with_key(request, key)))

    def endpoint(version: str, summary: str = "") -> Endpoint:
        path = f"/_matrix/client/{version}/voip/turnServer"
        return Endpoint(
            "GET", path, turn_server, summary, dialects.MATRIX, parameters=(_ACCESS_TOKEN,), answer="matrix"
        )

    return endpoint("v3", "Matrix's turnServer"), endpoint("r0")


def _whip(requests: IceRequests, issuer: Issuer) -> tuple[Endpoint, ...]:
    async def link(request: Request) -> Response:
        """The Link header of RFC 9725, for the answer of a media server. The key is the Bearer token."""
        issued = requests.issue_with_key(request, bearer(request.headers), _USER.of(request), _TTL.seconds(request))
        headers = {**_NO_STORE, "Link": dialects.links(issued), "Accept-Post": "application/sdp"}
        return Response(status_code=204, headers=headers)

    ways = (
        ("GET", "/ice-servers/link", "Link header for WHIP and WHEP"),
        ("OPTIONS", "/whip/{endpoint:path}", "WHIP's question for ICE servers"),
        ("OPTIONS", "/whep/{endpoint:path}", "WHEP's question for ICE servers"),
    )
    return tuple(
        Endpoint(
            method,
            path,
            link,
            summary,
            dialects.WHIP,
            parameters=(_USER, _TTL) if method == "GET" else (_ENDPOINT, _USER, _TTL),
            status=204,
        )
        for method, path, summary in ways
    )


def host_of(request: Request) -> str:
    """Name or address by which the caller knows this server, without port; raises Refused."""
    match = _HOST.fullmatch(request.headers.get("host", ""))
    host = match[1].strip("[]") if match else ""
    if not host or (":" in host and not _is_ip(host)):
        raise Refused(400, "the Host header names no host")
    return host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _any_key(request: Request) -> str | None:
    return bearer(request.headers) or basic(request.headers) or _KEY.of(request)


def _answer(body: Mapping[str, Any] | list[Any], status: int = 200) -> JSONResponse:
    return JSONResponse(body, status_code=status, headers=_NO_STORE)


async def _object(request: Request) -> dict[str, Any]:
    return _parsed_object(await request.body())


def _parsed_object(raw: bytes) -> dict[str, Any]:
    """A JSON object; an absent body counts as an empty one. Raises Refused."""
    try:
        body = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object")
    return body


def _number(value: object) -> float | None:
    """Raises Refused."""
    if value is None:
        return None
    try:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise Refused(400, "the lifetime is not a number of seconds")


def _signed(request: Request, body: bytes) -> sigv4.SignedRequest:
    raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return sigv4.SignedRequest(
        request.method, raw_path.decode("latin-1"), query.decode("latin-1"), request.headers, body
    )
