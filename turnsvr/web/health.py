"""Whether the server lives, whether it takes sessions, and its figures for those who may read them."""

from __future__ import annotations

import ipaddress

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from turnsvr.config.websettings import WebSettings
from turnsvr.web.connections import HttpConnections
from turnsvr.web.context import WebContext
from turnsvr.web.endpoints import Endpoint
from turnsvr.web.issuer import Issuer
from turnsvr.web.metrics import Metrics
from turnsvr.web.refusal import Refused
from turnsvr.web.rooms import SignallingRooms


def endpoints(
    settings: WebSettings,
    context: WebContext,
    issuer: Issuer,
    rooms: SignallingRooms | None,
    connections: HttpConnections,
) -> tuple[Endpoint, ...]:
    """`/healthz`, `/readyz` and, for the addresses that may read them, `/metrics`."""
    figures = Metrics(context, issuer, rooms, connections)

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
        await context.refresh()
        return Response(await figures.text(), media_type=CONTENT_TYPE_LATEST)

    ready = "Whether it takes new sessions; 503 while it drains or lacks what they need"
    return (
        Endpoint("GET", "/healthz", healthz, "Whether the server lives", tag="health", answer="healthz", head=True),
        Endpoint("GET", "/readyz", readyz, ready, tag="health", answer="readyz", head=True),
        Endpoint("GET", "/.well-known/acme-challenge/{token}", proof),
        Endpoint("GET", "/metrics", metrics, "Figures for Prometheus", tag="health", head=True),
    )


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
