"""The HTTP application: every endpoint, and how each refusal is told."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from turnsvr import __version__
from turnsvr.config.websettings import WebListen, WebSettings
from turnsvr.web import dialects, health, page, routes
from turnsvr.web.connections import HttpConnections
from turnsvr.web.context import Context
from turnsvr.web.issuer import Issuer
from turnsvr.web.middleware import AsgiApp, BoundedBody, Forwarded
from turnsvr.web.origins import all_origins
from turnsvr.web.refusal import Refused
from turnsvr.web.rooms import Rooms
from turnsvr.web.signalling import Signalling

_MAX_BODY = 65_536
_REFUSALS = {
    "400": "Something in the request means nothing.",
    "401": "A key is needed, or this one is not known.",
    "403": "The key may not be used from this origin.",
    "429": "Too many requests, or the key's quota is used up; Retry-After tells when to come back.",
    "503": "The server drains, or has no shared secret.",
}
_OUTCOMES = {400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "unknown", 429: "limited", 503: "unavailable"}


class Web:
    """One HTTP application and what runs beside it."""

    def __init__(
        self,
        settings: WebSettings,
        context: Context,
        connections: HttpConnections,
        *,
        listening: Callable[[], tuple[WebListen, ...]] = tuple,
        sessions: Callable[[], int],
        random: Callable[[int], bytes] = secrets.token_bytes,
        predecessor: Web | None = None,
    ) -> None:
        """listening: where it is served, once that is known. sessions: those of signalling that there is room for.

        A predecessor's rooms and counts are taken over.
        """
        self._settings = settings
        self._context = context
        self._connections = connections
        self._listening = listening
        self._sessions = sessions
        if predecessor is None:
            self.issuer = Issuer(settings, context, random)
            self.signalling = self._signalling(random)
        else:
            self.issuer = predecessor.issuer
            self.issuer.reconfigure(settings)
            self.signalling = predecessor.signalling
            if self.signalling is not None:
                self.signalling.origins = all_origins(settings)
        self.asgi = self._assemble()

    def _signalling(self, random: Callable[[int], bytes]) -> Signalling | None:
        bounds, settings = self._settings.signalling, self._settings
        if bounds is None:
            return None
        return Signalling(
            Rooms(bounds, random),
            message_size=bounds.message_size,
            origins=all_origins(settings),
            room=self._sessions,
            per_address=bounds.sessions_per_address,
            rate=settings.requests_per_address,
        )

    def _assemble(self) -> AsgiApp:
        settings = self._settings
        app = FastAPI(
            title="turnsvr",
            version=__version__,
            description="ICE servers for WebRTC applications, in the shapes that they already speak.",
            docs_url=None,
            redoc_url=None,
        )
        app.add_exception_handler(Refused, self._refuse)
        app.add_exception_handler(RequestValidationError, self._refuse_invalid)
        app.add_exception_handler(HTTPException, self._refuse_http)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=all_origins(settings),
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("*",),
            expose_headers=("Retry-After",),
        )
        files = page.static_files()
        app.include_router(routes.router(self.issuer, settings))
        rooms = self.signalling.rooms if self.signalling else None
        app.include_router(health.router(settings, self._context, self.issuer, rooms, self._connections))
        app.include_router(page.router(files, self._about, page=settings.page))
        self._add_root(app, files["index.html"])
        _describe_refusals(app)
        inner: AsgiApp = self.signalling.mount(app) if self.signalling else app
        return Forwarded(BoundedBody(inner, _MAX_BODY), settings.trusted_proxies)

    def _add_root(self, app: FastAPI, index: page.StaticFile) -> None:
        """/ is the page, and with a query the REST API of draft-uberti-behave-turn-rest-00."""
        uberti = routes.uberti(self.issuer, self._settings)

        @app.head("/", include_in_schema=False)
        @app.get("/", tags=["uberti"], summary="draft-uberti-behave-turn-rest; without a query the page")
        async def root(
            request: Request, service: str | None = None, username: str | None = None, key: str | None = None
        ) -> Response:
            if service is not None:
                if request.method == "HEAD":
                    raise HTTPException(405, headers={"Allow": "GET"})  # credentials would be issued to no one
                return uberti(request)
            if self._settings.page:
                return index.response(request)
            raise HTTPException(404)

    def _about(self, request: Request) -> dict[str, Any]:
        """What the page has to know before it begins."""
        secure = next((each.port for each in self._listening() if each.scheme == "https"), None)
        return {
            "version": __version__,
            "host": self._settings.host or routes.host_of(request),
            "securePort": secure,
            "keyNeeded": not self._settings.public,
            "signalling": self.signalling is not None,
            "members": self._settings.signalling.members if self._settings.signalling else 0,
            "certificateTrusted": self._context.certificate_trusted,
            "draining": self._context.draining,
            "peer": self._peer(request),
        }

    def _peer(self, request: Request) -> dict[str, str] | None:
        """Where the server sees this browser, and whether it could be a peer of the browser's own connection there."""
        try:
            address = ipaddress.ip_address(request.client.host if request.client else "")
        except ValueError:  # a Unix socket's
            return None
        host = str(getattr(address, "ipv4_mapped", None) or address)
        return {"address": host, "verdict": self._context.as_peer(host)}

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        dialect: dialects.Dialect | None = getattr(request.state, "dialect", None)
        if dialect is None:
            return JSONResponse({"error": error.text}, status_code=error.status)
        self.issuer.outcomes[dialect.name, _OUTCOMES.get(error.status, "failed")] += 1
        headers = {**dialect.headers(error), "Cache-Control": "no-store"}
        return JSONResponse(dialect.error(error), status_code=error.status, headers=headers)

    async def _refuse_invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        names = sorted({str(each["loc"][-1]) for each in error.errors()})
        return await self._refuse(request, Refused(400, f"not valid: {', '.join(names)}"))

    async def _refuse_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refused = Refused(error.status_code, "there is nothing here" if error.status_code == 404 else error.detail)
        return await self._refuse(request, refused)


def _describe_refusals(app: FastAPI) -> None:
    """Have the OpenAPI description say how requests are refused here, in place of FastAPI's own 422."""
    described = app.openapi()
    for methods in described["paths"].values():
        for operation in methods.values():
            responses = operation["responses"]
            responses.pop("422", None)
            if set(operation.get("tags", ())) != {"health"}:
                responses |= {code: {"description": text} for code, text in _REFUSALS.items()}
    described.get("components", {}).pop("schemas", None)
    app.openapi = lambda: described  # type: ignore[method-assign]
