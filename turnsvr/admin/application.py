"""The HTTP application: its endpoints, and one way to say that something was refused.

It stands on Starlette alone: FastAPI would add a third to the time that the server takes to start, for nine endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from turnsvr.admin.context import AdminContext
from turnsvr.admin.listing import BadRequest
from turnsvr.admin.operation import Operation
from turnsvr.admin.rates import Rates
from turnsvr.admin.routes import Mistaken, operations
from turnsvr.web.middleware import AsgiApp, BoundedBody
from turnsvr.web.refusal import Refused

_MAX_BODY = 4_096
_HEADERS = {"Cache-Control": "no-store"}


def application(context: AdminContext, rates: Rates, *, local: bool = False) -> AsgiApp:
    """Without any guard: every caller may control the server. local: as operations() has it."""
    every = operations(context, rates, local=local)
    by_path: dict[str, dict[str, Operation]] = {}
    for each in every:
        by_path.setdefault(each.path, {})[each.method] = each
    app = Starlette(
        routes=[*(_route(path, methods) for path, methods in by_path.items()), _description(every)],
        exception_handlers={
            Refused: _refused,
            BadRequest: _bad_request,
            ValidationError: _invalid,
            Mistaken: _mistaken,
            HTTPException: _http,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return BoundedBody(app, _MAX_BODY)


def answer(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal: one sentence."""
    return JSONResponse({"error": text}, status_code=status, headers=_HEADERS | (headers or {}))


def _route(path: str, methods: Mapping[str, Operation]) -> Route:
    async def serve(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        return _answer(200, await operation.run(await _asked(operation, request)), sparse=operation.sparse)

    return Route(path, serve, methods=list(methods))


def _description(every: Sequence[Operation]) -> Route:
    async def serve(request: Request) -> Response:
        from turnsvr.admin.description import describe  # it takes as long as all else, and is seldom asked for

        return JSONResponse(describe(every), headers=_HEADERS)

    return Route("/openapi.json", serve)


async def _asked(operation: Operation, request: Request) -> BaseModel:
    """Raises ValidationError."""
    if operation.method == "PUT":
        return operation.asked.model_validate_json(await request.body())
    return operation.asked.model_validate({**request.query_params, **request.path_params})


def _answer(status: int, model: BaseModel, *, sparse: bool = False) -> Response:
    return Response(model.model_dump_json(exclude_unset=sparse), status, _HEADERS, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(error.status, error.text)


async def _bad_request(request: Request, error: Exception) -> Response:
    return answer(400, str(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """Which parts of the request are wrong, and how; never what was in them."""
    assert isinstance(error, ValidationError)
    wrong = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(map(str, each["loc"])) or "body"
        wrong.append(f"{where}: {each['msg'].removeprefix('Value error, ')}")
    return answer(400, "; ".join(wrong))


async def _mistaken(request: Request, error: Exception) -> Response:
    assert isinstance(error, Mistaken)
    return _answer(422, error.answer)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing here", 405: "this is not done here"}.get(error.status_code, error.detail)
    return answer(error.status_code, text, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    return answer(500, "this went wrong here; the log says how")
