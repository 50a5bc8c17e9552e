"""JSON Schemas of what applications send and are given, by the names that endpoints call them."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_SECONDS: Schema = {"type": "number", "description": "Seconds."}
_SENTENCE: Schema = {"type": "string", "description": "One sentence."}
_INTEGER: Schema = {"type": "integer"}
_URLS: Schema = {"type": "array", "items": _TEXT}


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": required | optional}
    return schema | {"required": list(required)} if required else schema


def _list(each: Schema) -> Schema:
    return {"type": "array", "items": each}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_SERVERS = _list(_named("ice_server"))
_LOGIN = {"username": _TEXT, "password": _TEXT}

SHAPES: dict[str, Schema] = {
    "ice_server": _object({"urls": {"anyOf": [_TEXT, _URLS]}}, username=_TEXT, credential=_TEXT, url=_TEXT),
    "xirsys_server": _object({}, url=_TEXT, urls=_URLS, username=_TEXT, credential=_TEXT),
    "native": _object({"iceServers": _SERVERS, "ttl": _SECONDS}, iceTransportPolicy={"const": "relay"}),
    "uberti": _object(_LOGIN | {"ttl": _SECONDS, "uris": _URLS}),
    "twilio_asks": _object({}, Ttl={"type": "string", "description": "Lifetime in seconds."}),
    "twilio": _object(
        {
            "account_sid": _TEXT,
            "date_created": _TEXT,
            "date_updated": _TEXT,
            "ice_servers": _SERVERS,
            "ttl": {"type": "string", "description": "Seconds."},
            **_LOGIN,
        }
    ),
    "cloudflare_asks": _object({}, ttl=_SECONDS, customIdentifier=_TEXT),
    "cloudflare": _object({"iceServers": _SERVERS}),
    "cloudflare_single": _object({"iceServers": _named("ice_server")}),
    "metered": _SERVERS,
    "xirsys_asks": _object({}, format=_TEXT, expire=_SECONDS, k=_TEXT),
    "xirsys": _object(
        {
            "s": {"const": "ok"},
            "v": _object({"iceServers": {"anyOf": [_named("xirsys_server"), _list(_named("xirsys_server"))]}}),
        }
    ),
    "aws_asks": _object({}, Service={"const": "TURN"}, Username=_TEXT, ClientId=_TEXT),
    "aws": _object(
        {"IceServerList": _list(_object({"Username": _TEXT, "Password": _TEXT, "Ttl": _SECONDS, "Uris": _URLS}))}
    ),
    "matrix": _object({"username": _TEXT, "password": _TEXT, "uris": _URLS, "ttl": _SECONDS}),
    "error": _object({"error": _SENTENCE}),
    "twilio_error": _object(
        {"code": _INTEGER, "message": _SENTENCE, "more_info": _TEXT, "status": {"type": "integer"}}
    ),
    "cloudflare_error": _object(
        {
            "success": {"const": False},
            "errors": _list(_object({"code": _INTEGER, "message": _SENTENCE})),
            "result": {"type": "null"},
        }
    ),
    "xirsys_error": _object({"s": {"const": "error"}, "v": _SENTENCE}),
    "aws_error": _object({"Message": _SENTENCE}),
    "matrix_error": _object({"errcode": _TEXT, "error": _SENTENCE}, retry_after_ms=_INTEGER),
    "healthz": _object({"status": {"const": "ok"}}),
    "readyz": _object({"status": {"enum": ["ready", "not ready", "draining"]}}, problems=_list(_TEXT)),
}

FORMS = ("twilio_asks",)
"""Sent as a form, not as JSON."""
