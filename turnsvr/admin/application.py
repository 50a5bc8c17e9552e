"""The HTTP application: its endpoints, and one way to say that something was refused."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from turnsvr import __version__
from turnsvr.admin import models, routes
from turnsvr.admin.context import Context
from turnsvr.admin.listing import BadRequest
from turnsvr.admin.rates import Rates
from turnsvr.web.middleware import AsgiApp, BoundedBody
from turnsvr.web.refusal import Refused

_MAX_BODY = 4_096
_REFUSALS: dict[int | str, str] = {
    400: "Something in the request means nothing.",
    401: "The token is missing or wrong; not on the Unix socket.",
    403: "A web page calls, or a name where an address is wanted; not on the Unix socket.",
}


def application(context: Context, rates: Rates) -> AsgiApp:
    """Without any guard: whoever reaches it may steer."""
    app = FastAPI(
        title="turnsvr admin",
        version=__version__,
        description="Seeing and steering a running server. Numbers of seconds are seconds from now.",
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": models.Mistake, "description": why} for status, why in _REFUSALS.items()},
    )
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(BadRequest, _bad_request)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    app.include_router(routes.router(context, rates))
    _describe(app)
    return BoundedBody(app, _MAX_BODY)


def answer(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A refusal: one sentence."""
    return JSONResponse({"error": text}, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return answer(error.status, error.text)


async def _bad_request(request: Request, error: Exception) -> JSONResponse:
    return answer(400, str(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Which parts of the request are wrong, and how; never what was in them."""
    assert isinstance(error, RequestValidationError)
    wrong = []
    for each in error.errors():
        where = ".".join(map(str, each["loc"][1:])) or str(each["loc"][0])
        wrong.append(f"{where}: {each['msg'].removeprefix('Value error, ')}")
    return answer(400, "; ".join(wrong))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing here", 405: "this is not done here"}.get(error.status_code, error.detail)
    return answer(error.status_code, text, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return answer(500, "this went wrong here; the log says how")


def _describe(app: FastAPI) -> None:
    """Have the OpenAPI description say how requests are refused here, in place of FastAPI's own 422."""
    described = app.openapi()
    for path in described["paths"].values():
        for operation in path.values():
            refusal = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(refusal):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(name, None)
    described["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "admin.token; not needed on the Unix socket."}
    }
    described["security"] = [{"token": []}, {}]
    app.openapi = lambda: described  # type: ignore[method-assign]
