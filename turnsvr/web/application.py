"""The HTTP application: every endpoint, and how each refusal is told.

It stands on Starlette alone: with FastAPI the server would take a third more time and 15 MB more to start.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from turnsvr import __version__
from turnsvr.config.websettings import WebListen, WebSettings
from turnsvr.web import dialects, health, page, routes
from turnsvr.web.connections import HttpConnections
from turnsvr.web.context import WebContext
from turnsvr.web.endpoints import Endpoint, Parameter
from turnsvr.web.issuer import Issuer
from turnsvr.web.middleware import AsgiApp, BoundedBody, Forwarded
from turnsvr.web.origins import all_origins
from turnsvr.web.refusal import Refused
from turnsvr.web.rooms import SignallingRooms
from turnsvr.web.signalling import Signalling

_MAX_BODY = 65_536
_REST = (
    Parameter("service", "`turn`, in which case credentials are asked for."),
    Parameter("username", "The user that they are for; random when absent."),
    Parameter("key", "The API key, in place of the Authorization header."),
)
_OUTCOMES = {400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "unknown", 429: "limited", 503: "unavailable"}


class Web:
    """One HTTP application and what runs beside it."""

    def __init__(
        self,
        settings: WebSettings,
        context: WebContext,
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
            SignallingRooms(bounds, random),
            message_size=bounds.message_size,
            origins=all_origins(settings),
            room=self._sessions,
            per_address=bounds.sessions_per_address,
            rate=settings.requests_per_address,
        )

    def _assemble(self) -> AsgiApp:
        settings = self._settings
        files = page.static_files()
        rooms = self.signalling.rooms if self.signalling else None
        every = (
            *routes.endpoints(self.issuer, settings),
            *health.endpoints(settings, self._context, self.issuer, rooms, self._connections),
            *page.endpoints(files, self._about, page=settings.page),
            self._root(files["index.html"]),
        )
        cors = Middleware(
            CORSMiddleware,
            allow_origins=all_origins(settings),
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("*",),
            expose_headers=("Retry-After", "Link"),
        )
        app = Starlette(
            routes=[each.route() for each in (*every, _description(every, public=settings.public))],
            middleware=[cors],
            exception_handlers={Refused: self._refuse, HTTPException: self._refuse_http},
        )
        inner: AsgiApp = self.signalling.mount(app) if self.signalling else app
        return Forwarded(BoundedBody(inner, _MAX_BODY), settings.trusted_proxies)

    def _root(self, index: page.StaticFile) -> Endpoint:
        """/ is the page, and with a query the REST API of draft-uberti-behave-turn-rest-00."""
        uberti = routes.uberti(self.issuer, self._settings)

        async def root(request: Request) -> Response:
            if "service" in request.query_params:
                if request.method == "HEAD":
                    raise HTTPException(405, headers={"Allow": "GET"})  # its credentials would be thrown away
                return uberti(request)
            if self._settings.page:
                return index.response(request)
            raise HTTPException(404)

        summary = "draft-uberti-behave-turn-rest; without a query the page"
        return Endpoint("GET", "/", root, summary, tag="uberti", parameters=_REST, answer="uberti", head=True)

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
            "relaysTcp": self._context.relays_tcp,
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

    async def _refuse_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refused = Refused(error.status_code, "there is nothing here" if error.status_code == 404 else error.detail)
        response = await self._refuse(request, refused)
        response.headers.update(error.headers or {})
        return response


def _description(every: Sequence[Endpoint], *, public: bool) -> Endpoint:
    async def describe(request: Request) -> Response:
        from turnsvr.web.description import describe  # made when it is asked for

        return JSONResponse(describe(every, public=public))

    return Endpoint("GET", "/openapi.json", describe, head=True)
