"""The OpenAPI description of what `web` serves, made of its endpoints on a request for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from turnsvr import __version__
from turnsvr.web.endpoints import Endpoint, Parameter, WholeSeconds
from turnsvr.web.shapes import FORMS, SHAPES
from turnsvr.web.ways import SCHEMES, Curl, security

_REFUSALS = {
    "400": "Something in the request means nothing.",
    "401": "A key is needed, or this one is not known.",
    "403": "The key may not be used from this origin.",
    "429": "Too many requests, or the key's quota is used up.",
    "503": "The server drains, or has no shared secret.",
}
_OF_BODIES = {"408": "The body did not come to its end.", "413": "The body is too large."}
_CONVERTER = re.compile(r":\w+}")
_ERRORS = {name.removesuffix("_error"): name for name in SHAPES if name.endswith("_error")}
"""Shapes of refusals, by dialect; "error" for the others."""
_TEXT = {"schema": {"type": "string"}}


def describe(endpoints: Iterable[Endpoint], *, public: bool = False) -> dict[str, Any]:
    """Of those that have a summary. public: whether credentials are given without a key, too."""
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        if each.summary:
            paths.setdefault(_CONVERTER.sub("}", each.path), {})[each.method.lower()] = _operation(each, public)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "turnsvr",
            "version": __version__,
            "description": "ICE servers for WebRTC applications, in the shapes that they already speak. An app written "
            "for one of these services changes only its base URL.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": SHAPES, "securitySchemes": dict(SCHEMES)},
    }


def _operation(endpoint: Endpoint, public: bool) -> dict[str, Any]:
    tag = endpoint.tag if endpoint.dialect is None else endpoint.dialect.name
    curl = str(Curl(endpoint, tag))
    described: dict[str, Any] = {
        "operationId": _identifier(endpoint),
        "summary": endpoint.summary,
        "description": "\n\n".join(filter(None, (inspect.getdoc(endpoint.run), f"```shell\n{curl}\n```"))),
        "tags": [tag],
        "security": security(tag, public=public),
        "x-codeSamples": [{"lang": "shell", "label": "curl", "source": curl}],
        "responses": _responses(endpoint, tag),
    }
    if endpoint.parameters:
        described["parameters"] = [_parameter(endpoint, each) for each in endpoint.parameters]
    if endpoint.body:
        kind = "application/x-www-form-urlencoded" if endpoint.body in FORMS else "application/json"
        described["requestBody"] = {"content": {kind: _reference(endpoint.body)}}
    return described


def _identifier(endpoint: Endpoint) -> str:
    words = re.findall(r"[A-Za-z0-9]+", _CONVERTER.sub("}", endpoint.path))
    return "_".join([endpoint.method.lower(), *words]) if words else f"{endpoint.method.lower()}_root"


def _responses(endpoint: Endpoint, tag: str) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "It is done." if endpoint.status == 204 else "This is it."}
    if endpoint.answer:
        done["content"] = {"application/json": _reference(endpoint.answer)}
    elif tag == "health":
        done["content"] = {"text/plain": _TEXT}
    if tag == "whip":
        done["headers"] = {"Link": {**_TEXT, "description": "ICE servers, as RFC 9725 section 4.6 has them."}}
    refusals = _refusals_of_health(endpoint) if tag == "health" else _refusals(endpoint, tag)
    return {str(endpoint.status): done, **refusals}


def _refusals(endpoint: Endpoint, tag: str) -> dict[str, Any]:
    content = {"application/json": _reference(_ERRORS.get(tag, "error"))}
    every: dict[str, Any] = {code: {"description": text, "content": content} for code, text in _REFUSALS.items()}
    every["429"]["headers"] = {
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to come back."}
    }
    if "{username" in endpoint.path:
        every["404"] = {"description": "No such user name has been given out with this key.", "content": content}
    if endpoint.body:
        every |= {code: {"description": text, "content": {"text/plain": _TEXT}} for code, text in _OF_BODIES.items()}
    return every


def _refusals_of_health(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.path == "/readyz":
        return {"503": {"description": "It takes none.", "content": {"application/json": _reference("readyz")}}}
    if endpoint.path == "/metrics":
        content = {"application/json": _reference("error")}
        return {"403": {"description": "This address may not read them.", "content": content}}
    return {}


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
