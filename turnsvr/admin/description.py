"""The OpenAPI description of the admin interface, made of its operations and models on the first request for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from turnsvr import __version__
from turnsvr.admin import models
from turnsvr.admin.operation import Operation

_REF = "#/components/schemas/{model}"
_REFUSALS: Mapping[int, str] = {
    400: "Something in the request means nothing.",
    401: "The token is missing or wrong; not on the Unix socket.",
    403: "A web page calls, or a name where an address is wanted; not on the Unix socket.",
    404: "There is no such session, or trace.",
    409: "It cannot be done as things are.",
    422: "The settings have mistakes, and nothing has changed.",
}
_EVERYWHERE = (400, 401, 403)


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    shown: dict[type[BaseModel], None] = {models.Mistake: None}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
        shown |= dict.fromkeys((each.answer, *each.refusals.values(), *([each.asked] if _has_body(each) else [])))
    _, schemas = models_json_schema([(each, "validation") for each in shown], ref_template=_REF)
    token = {"type": "http", "scheme": "bearer", "description": "admin.token; not needed on the Unix socket."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "turnsvr admin",
            "version": __version__,
            "description": "Watching and controlling a running server. Numbers of seconds are seconds from now.",
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"token": token}},
        "security": [{"token": []}, {}],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    refusals = dict.fromkeys(_EVERYWHERE, models.Mistake) | dict(operation.refusals)
    described: dict[str, Any] = {
        "operationId": "_".join([operation.method.lower(), *re.findall(r"[a-z]+", operation.path)]),
        "summary": operation.summary,
        "tags": [_tag(operation.path)],
        "responses": {
            "200": _response("It is done, or this is it.", operation.answer),
            **{str(status): _response(_REFUSALS[status], model) for status, model in sorted(refusals.items())},
        },
    }
    curl = _curl(operation)
    described["description"] = "\n\n".join(filter(None, (inspect.getdoc(operation.run), f"```shell\n{curl}\n```")))
    described["x-codeSamples"] = [{"lang": "shell", "label": "curl", "source": curl}]
    if _has_body(operation):
        described["requestBody"] = {"required": True, "content": _content(operation.asked)}
    elif parameters := list(_parameters(operation)):
        described["parameters"] = parameters
    return described


def _curl(operation: Operation) -> str:
    """An example over the Unix socket, where no token is needed."""
    method = [] if operation.method == "GET" else ["-X", operation.method]
    body = ["-d", """'{"level": "debug", "for": "10m"}'"""] if _has_body(operation) else []
    wanted = operation.asked.model_json_schema().get("required", ())
    asked = [f"{name}=alice" for name in wanted if f"{{{name}}}" not in operation.path and not body]
    if operation.path == "/traces":
        asked = ["user=alice"]
    target = operation.path.replace("{id}", "17") + ("?" + "&".join(asked) if asked else "")
    return " ".join(["curl", "--unix-socket /run/turnsvr/admin.sock", *method, *body, f'"http://localhost{target}"'])


def _tag(path: str) -> str:
    first = path.split("/")[1]
    return first if first in ("sessions", "traces") else "server"


def _has_body(operation: Operation) -> bool:
    return operation.method == "PUT"


def _response(text: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": text, "content": _content(model)}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    schema = operation.asked.model_json_schema()
    for name, each in schema.get("properties", {}).items():
        parameter = {
            "name": name,
            "in": "path" if f"{{{name}}}" in operation.path else "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in each.items() if key != "description"},
        }
        if "description" in each:
            parameter["description"] = each["description"]
        yield parameter
