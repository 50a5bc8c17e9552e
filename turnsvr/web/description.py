"""The OpenAPI description of what `web` serves, made of its endpoints on a request for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from turnsvr import __version__
from turnsvr.web.endpoints import Endpoint, Parameter, WholeSeconds
from turnsvr.web.shapes import FORMS, SHAPES

_REFUSALS = {
    "400": "Something in the request means nothing.",
    "401": "A key is needed, or this one is not known.",
    "403": "The key may not be used from this origin.",
    "429": "Too many requests, or the key's quota is used up; Retry-After tells when to come back.",
    "503": "The server drains, or has no shared secret.",
}
_CONVERTER = re.compile(r":\w+}")


def describe(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Of those that have a summary."""
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        if each.summary:
            paths.setdefault(_CONVERTER.sub("}", each.path), {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "turnsvr",
            "version": __version__,
            "description": "ICE servers for WebRTC applications, in the shapes that they already speak.",
        },
        "paths": paths,
        "components": {"schemas": SHAPES},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    tag = endpoint.tag if endpoint.dialect is None else endpoint.dialect.name
    described: dict[str, Any] = {"summary": endpoint.summary, "tags": [tag], "responses": _responses(endpoint, tag)}
    if text := inspect.getdoc(endpoint.run):
        described["description"] = text
    if endpoint.parameters:
        described["parameters"] = [_parameter(endpoint, each) for each in endpoint.parameters]
    if endpoint.body:
        kind = "application/x-www-form-urlencoded" if endpoint.body in FORMS else "application/json"
        described["requestBody"] = {"content": {kind: _reference(endpoint.body)}}
    return described


def _responses(endpoint: Endpoint, tag: str) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "It is done." if endpoint.status == 204 else "This is it."}
    if endpoint.answer:
        done["content"] = {"application/json": _reference(endpoint.answer)}
    refusals = {} if tag == "health" else {code: {"description": text} for code, text in _REFUSALS.items()}
    return {str(endpoint.status): done, **refusals}


def _reference(shape: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{shape}"}}


def _parameter(endpoint: Endpoint, parameter: Parameter) -> dict[str, Any]:
    inside = re.search(rf"{{{parameter.name}[:}}]", endpoint.path) is not None
    schema: dict[str, Any] = (
        {"type": "number", "minimum": 1} if isinstance(parameter, WholeSeconds) else {"type": "string"}
    )
    if parameter.longest is not None:
        schema["maxLength"] = parameter.longest
    return {
        "name": parameter.name,
        "in": "path" if inside else "query",
        "required": inside,
        "schema": schema,
        "description": parameter.meaning,
    }
