"""Who may call over TCP: a caller with the token, and no web page, by whatever name it reaches this server.

Nor who has offered too many wrong tokens just now, so that they cannot be tried out.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Callable

import structlog

from turnsvr.admin.application import answer
from turnsvr.limits import AnswerLimiter
from turnsvr.web.middleware import AsgiApp, AsgiReceive, AsgiScope, AsgiSend
from turnsvr.web.origins import header

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_BEARER = "bearer "
_WRONG_TOKENS_A_SECOND = 5.0
"""Of one address, as AnswerLimiter tells them apart."""
_SLOTS = 4096

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}

_log = structlog.get_logger()


class Guard:
    """Lets requests through that bring the token.

    A browser's page is refused by what browsers cannot help sending: Origin, and over plain HTTP a Host that is a name,
    which is how DNS rebinding looks from here. Over HTTPS the certificate has settled the name already.
    """

    def __init__(
        self, app: AsgiApp, token: Callable[[], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Without a token no caller is let through."""
        self._app = app
        self._token = token
        self._clock = clock
        self._wrong = AnswerLimiter(_WRONG_TOKENS_A_SECOND, _SLOTS)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, text = refusal
        _log.warning("admin request refused", client=_host(scope), reason=text)
        await answer(status, text, _HEADERS.get(status))(scope, receive, send)

    def _refusal(self, scope: AsgiScope) -> tuple[int, str] | None:
        if header(scope, "origin") is not None:
            return 403, "web pages may not call here"
        if scope["scheme"] == "http" and not _is_address(header(scope, "host")):
            return 403, "over plain HTTP this server is called by its IP address, or as localhost"
        offered = header(scope, "authorization")
        if offered is None:
            return 401, "a token is needed, as Authorization: Bearer"
        client, now = _packed(_host(scope)), self._clock()
        if self._wrong.exhausted(client, now):
            return 429, "too many wrong tokens came from this address; wait a second"
        if not self._is_right(offered):
            self._wrong.allow(client, now)
            return 401, "the token is wrong"
        return None

    def _is_right(self, offered: str) -> bool:
        token = self._token()
        scheme, value = offered[: len(_BEARER)], offered[len(_BEARER) :].strip()
        right = hmac.compare_digest(value.encode("latin-1", "replace"), (token or "").encode())
        return right and bool(token) and scheme.lower() == _BEARER


def _host(scope: AsgiScope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _packed(host: str) -> bytes:
    try:
        return ipaddress.ip_address(host).packed
    except ValueError:
        return b""


def _is_address(host: str | None) -> bool:
    match = _HOST.fullmatch(host or "")
    if match is None:
        return False
    try:
        ipaddress.ip_address(match[1].strip("[]"))
    except ValueError:
        return match[1].lower() == "localhost"
    return True
