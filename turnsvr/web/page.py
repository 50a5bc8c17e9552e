"""The page at / and what belongs to it: files of this package, held in memory, with the headers that fence them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

_READ = ["GET", "HEAD"]

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self)",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class StaticFile:
    """One file of the package's static folder, with its type and its tag."""

    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._headers = {
            **_HEADERS,
            "Content-Type": _TYPES[name.rpartition(".")[2]],
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        }

    def response(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._headers["ETag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


def static_files() -> dict[str, StaticFile]:
    """Every file of the static folder by its name."""
    folder = files("turnsvr.web").joinpath("static")
    return {
        each.name: StaticFile(each.name, each.read_bytes())
        for each in folder.iterdir()
        if each.name.rpartition(".")[2] in _TYPES
    }


def router(found: dict[str, StaticFile], about: Callable[[Request], dict[str, Any]], *, page: bool) -> APIRouter:
    """`/docs`, `/static/…` and, for the page, `/page.json`; the page itself shares / with a dialect."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/docs", methods=_READ)
    async def docs(request: Request) -> Response:
        return found["docs.html"].response(request)

    @routes.api_route("/static/{name}", methods=_READ)
    async def static(request: Request, name: str) -> Response:
        file = found.get(name)
        return file.response(request) if file else Response("no such file", status_code=404)

    @routes.api_route("/favicon.ico", methods=_READ)
    async def favicon(request: Request) -> Response:
        return found["icon.svg"].response(request)

    if page:

        @routes.api_route("/page.json", methods=_READ)
        async def page_facts(request: Request) -> JSONResponse:
            return JSONResponse(about(request), headers={"Cache-Control": "no-store"})

    return routes
