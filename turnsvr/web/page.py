"""The page at / and what belongs to it: files of this package, held in memory, with the headers that confine them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from turnsvr.web.endpoints import Endpoint

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_VIEWER = ("swagger-ui-bundle.js", "swagger-ui.css")
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


@cache
def viewer_file(name: str) -> StaticFile:
    """One of the files of Swagger UI, which are large and read when they are asked for first."""
    return StaticFile(name, files("turnsvr.web").joinpath("viewer", name).read_bytes())


def endpoints(
    found: dict[str, StaticFile], about: Callable[[Request], dict[str, Any]], *, page: bool
) -> tuple[Endpoint, ...]:
    """`/docs`, `/static/…` and, for the page, `/page.json`; the page itself shares / with a dialect."""

    async def docs(request: Request) -> Response:
        return found["docs.html"].response(request)

    async def viewer(request: Request) -> Response:
        name = request.path_params["name"]
        return viewer_file(name).response(request) if name in _VIEWER else Response("no such file", status_code=404)

    async def static(request: Request) -> Response:
        file = found.get(request.path_params["name"])
        return file.response(request) if file else Response("no such file", status_code=404)

    async def favicon(request: Request) -> Response:
        return found["icon.svg"].response(request)

    async def page_facts(request: Request) -> Response:
        return JSONResponse(about(request), headers={"Cache-Control": "no-store"})

    served = {"/docs": docs, "/docs/{name}": viewer, "/static/{name}": static, "/favicon.ico": favicon}
    if page:
        served["/page.json"] = page_facts
    return tuple(Endpoint("GET", path, run, head=True) for path, run in served.items())
