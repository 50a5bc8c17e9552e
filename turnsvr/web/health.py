"""Whether the server lives, whether it takes sessions, and its figures for those who may read them."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from turnsvr.config.websettings import WebSettings
from turnsvr.limits import client_of
from turnsvr.web.connections import HttpConnections
from turnsvr.web.context import WebContext
from turnsvr.web.endpoints import Endpoint
from turnsvr.web.issuer import Issuer, packed
from turnsvr.web.metrics import Metrics
from turnsvr.web.refusal import Refused
from turnsvr.web.rooms import SignallingRooms

MAX_READINGS: Final = 8
"""Readings of the figures under way at once."""
MAX_READINGS_OF_ONE: Final = 4
"""Those of one IPv4 address or one IPv6 /64."""


def endpoints(
    settings: WebSettings,
    context: WebContext,
    issuer: Issuer,
    rooms: SignallingRooms | None,
    connections: HttpConnections,
) -> tuple[Endpoint, ...]:
    """`/healthz`, `/readyz` and, for the addresses that may read them, `/metrics`."""
    figures = Metrics(context, issuer, rooms, connections)
    readings = Readings()

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        if context.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        if problems := list(context.problems):
            return JSONResponse({"status": "not ready", "problems": problems}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def proof(request: Request) -> Response:
        """Proves a domain name to an ACME authority (http-01)."""
        text = context.proof(request.path_params["token"])
        return Response(text or "", 404 if text is None else 200, media_type="application/octet-stream")

    async def metrics(request: Request) -> Response:
        if not _may_read(settings, request):
            raise Refused(403, "this address may not read metrics; web.metrics names those that may")
        with readings.one_of(request.client.host if request.client else ""):
            await context.refresh()
            return Response(await figures.text(), media_type=CONTENT_TYPE_LATEST)

    ready = "Whether it takes new sessions; 503 while it drains or lacks what they need"
    return (
        Endpoint("GET", "/healthz", healthz, "Whether the server lives", tag="health", answer="healthz", head=True),
        Endpoint("GET", "/readyz", readyz, ready, tag="health", answer="readyz", head=True),
        Endpoint("GET", "/.well-known/acme-challenge/{token}", proof),
        Endpoint("GET", "/metrics", metrics, "Figures for Prometheus", tag="health", head=True),
    )


class Readings:
    """Readings that are under way: each takes a thread, and its connection does not end to make room for others."""

    def __init__(self) -> None:
        self._by_source: Counter[bytes] = Counter()

    @contextmanager
    def one_of(self, client: str) -> Iterator[None]:
        """One more of this client address for as long as the block lasts. Raises Refused."""
        source = client_of(packed(client))
        if self._by_source.total() >= MAX_READINGS or self._by_source[source] >= MAX_READINGS_OF_ONE:
            raise Refused(503, "too many read the figures at this moment", retry_after=1)
        self._by_source[source] += 1
        try:
            yield
        finally:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]


def _may_read(settings: WebSettings, request: Request) -> bool:
    """Whether the client may read metrics; never where a proxy that is not trusted forwarded the request."""
    if request.client is None or not (request.state.direct or settings.trusted_proxies):
        return False
    try:
        address = ipaddress.ip_address(request.client.host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in each for each in settings.metrics)
