"""What stands before every request: whose word is taken for the client's address, how large a body may be."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from turnsvr.config.ranges import AddressRange

AsgiScope = MutableMapping[str, Any]
AsgiEvent = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiEvent]]
AsgiSend = Callable[[AsgiEvent], Awaitable[None]]
AsgiApp = Callable[[AsgiScope, AsgiReceive, AsgiSend], Awaitable[None]]

_FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")
_SCHEMES = {"http": {"http": "http", "https": "https"}, "websocket": {"http": "ws", "https": "wss"}}
_TOO_LARGE = b"the request is too large"
_BODY_SECONDS = 12.0
"""A little less than the connection has for it, so that the client is told."""


class Forwarded:
    """Believes X-Forwarded-For, -Proto and -Host of the trusted proxies, and takes them off every request.

    The client is the last address in X-Forwarded-For that is no trusted proxy. scope["state"]["direct"] is
    true for a request that bears no sign of a proxy.
    """

    def __init__(self, app: AsgiApp, trusted: Iterable[AddressRange]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] in _SCHEMES:
            self._judge(scope)
        await self._app(scope, receive, send)

    def _judge(self, scope: AsgiScope) -> None:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        forwarded = [(name, value.decode("latin-1")) for name, value in headers if name in _FORWARDED]
        scope["headers"] = [(name, value) for name, value in headers if name not in _FORWARDED]
        client = scope.get("client")
        trusted = client is not None and self._is_trusted(client[0])
        scope.setdefault("state", {})["direct"] = not forwarded
        if not trusted:
            return
        hops = [hop.strip() for name, value in forwarded if name == b"x-forwarded-for" for hop in value.split(",")]
        last = dict(forwarded)
        origin = next((hop for hop in reversed(hops) if not self._is_trusted(hop)), None)
        if origin is not None and _address(origin) is not None:
            scope["client"] = (str(_address(origin)), 0)
        scheme = last.get(b"x-forwarded-proto", "").split(",")[-1].strip().lower()
        scope["scheme"] = _SCHEMES[scope["type"]].get(scheme, scope["scheme"])
        if host := last.get(b"x-forwarded-host", "").split(",")[-1].strip():
            kept = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [*kept, (b"host", host.encode("latin-1"))]

    def _is_trusted(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in each for each in self._trusted)


class BoundedBody:
    """Reads a request's body before it is served: at most `size` bytes, within 12 seconds.

    One that is said to be larger is not waited for.
    """

    def __init__(self, app: AsgiApp, size: int) -> None:
        self._app = app
        self._size = size

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        if _declared(scope) > self._size:
            await answer(send, 413, _TOO_LARGE)
            return
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await self._read(receive)
        except TimeoutError:
            await answer(send, 408, b"the request did not come to its end")
            return
        except _Gone:
            return
        if body is None:
            await answer(send, 413, _TOO_LARGE)
            return
        await self._app(scope, _Replay(body, receive), send)

    async def _read(self, receive: AsgiReceive) -> bytes | None:
        """None where it is too large; raises _Gone."""
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] != "http.request":
                raise _Gone
            body += event.get("body", b"")
            if len(body) > self._size:
                return None
            if not event.get("more_body", False):
                return bytes(body)


def _declared(scope: AsgiScope) -> int:
    """Bytes that the body is to have, 0 where the head does not say; h11 has seen that it is a number."""
    return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)


class _Gone(Exception):
    """The client has gone in the middle of its request."""


class _Replay:
    """Hands on the body in one piece, and after it every further event."""

    def __init__(self, body: bytes, receive: AsgiReceive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> AsgiEvent:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def answer(send: AsgiSend, status: int, text: bytes) -> None:
    """A refusal in plain text, after which the connection ends."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as it stands in X-Forwarded-For, with or without port, or as a socket has it."""
    host = text.strip().partition("%")[0]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
