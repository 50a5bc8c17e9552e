"""How a caller of each dialect says who it is, as OpenAPI has it and as curl takes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from turnsvr.web.endpoints import Endpoint, Parameter
from turnsvr.web.shapes import FORMS

_KEY_IN_QUERY = "The API key, for callers that cannot set headers. Logs of proxies may keep it."

SCHEMES: Mapping[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of `web.keys`."},
    "basic": {"type": "http", "scheme": "basic", "description": "The API key as password; any user name will do."},
    "key": {"type": "apiKey", "in": "query", "name": "key", "description": _KEY_IN_QUERY},
    "apiKey": {"type": "apiKey", "in": "query", "name": "apiKey", "description": _KEY_IN_QUERY},
    "accessToken": {"type": "apiKey", "in": "query", "name": "access_token", "description": _KEY_IN_QUERY},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "AWS Signature Version 4; the name of the API key is the access key, the key itself the secret.",
    },
}

_OF_DIALECT: Mapping[str, tuple[str, ...]] = {
    "native": ("bearer", "basic", "key"),
    "uberti": ("key", "bearer"),
    "twilio": ("basic",),
    "cloudflare": ("bearer",),
    "metered": ("apiKey",),
    "xirsys": ("basic",),
    "aws": ("signature", "bearer"),
    "matrix": ("bearer", "accessToken"),
    "whip": ("bearer",),
}
"""The one that curl shows comes first, but for a signature."""

_BODIES = {
    "twilio_asks": "-d Ttl=3600",
    "cloudflare_asks": """-H 'Content-Type: application/json' -d '{"ttl": 3600, "customIdentifier": "alice"}'""",
    "xirsys_asks": """-H 'Content-Type: application/json' -d '{"format": "urls", "expire": 3600}'""",
    "aws_asks": """-H 'Content-Type: application/json' -d '{"Service": "TURN", "Username": "alice"}'""",
}
_EXAMPLES = {
    "username": "1795534111:shop:alice",
    "account": "AC1",
    "key_id": "shop",
    "channel": "app",
    "endpoint": "live",
}


def security(tag: str, *, public: bool) -> list[dict[str, list[str]]]:
    """Any of these will do; public: whether none is needed."""
    ways: list[dict[str, list[str]]] = [{way: []} for way in _OF_DIALECT.get(tag, ())]
    return [*ways, {}] if ways and public else ways


@dataclass(frozen=True, slots=True)
class Curl:
    """An example: how the endpoint is called with curl, the key in the variable KEY."""

    endpoint: Endpoint
    tag: str

    def __str__(self) -> str:
        ways = [way for way in _OF_DIALECT.get(self.tag, ()) if way != "signature"]
        way = ways[0] if ways else ""
        words = ["curl", *self._method(), *_headers(way)]
        if self.endpoint.body:
            words.append(_BODIES[self.endpoint.body])
        return " ".join([*words, f'"https://turn.example.org{self._target(way)}"'])

    def _method(self) -> tuple[str, ...]:
        if self.tag == "whip":
            return ("-i",) if self.endpoint.method == "GET" else ("-i", "-X", self.endpoint.method)
        implied = "POST" if self.endpoint.body in (*FORMS, *_BODIES) else "GET"
        return () if self.endpoint.method == implied else ("-X", self.endpoint.method)

    def _target(self, way: str) -> str:
        path = self.endpoint.path.replace(":path", "")
        for name, value in _EXAMPLES.items():
            path = path.replace(f"{{{name}}}", quote(value))
        asked = [f"{each.name}={_value(each)}" for each in self.endpoint.parameters if _is_shown(each, self.endpoint)]
        if SCHEMES.get(way, {}).get("in") == "query":
            asked.append(f"{SCHEMES[way]['name']}=$KEY")
        return path + ("?" + "&".join(asked) if asked else "")


def _headers(way: str) -> tuple[str, ...]:
    return {"bearer": ("-H", '"Authorization: Bearer $KEY"'), "basic": ("-u", '"app:$KEY"')}.get(way, ())


def _is_shown(parameter: Parameter, endpoint: Endpoint) -> bool:
    return parameter.name in ("user", "service", "username") and f"{{{parameter.name}" not in endpoint.path


def _value(parameter: Parameter) -> str:
    return "turn" if parameter.name == "service" else "alice"
