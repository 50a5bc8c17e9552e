"""/openapi.json: valid, and as the server answers. Each example for curl is run."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import PATIENCE, need
from tests.web.conftest import KEY, Site, StartWeb

PLACES = {"endpoint": "room", "account": "a1", "key_id": "k1", "channel": "c1", "username": "nobody"}
ASKS: dict[str, list[Any]] = {
    "xirsys_asks": [{"format": "urls", "expire": 60}, {}],
    "cloudflare_asks": [{"ttl": 60, "customIdentifier": "u"}],
    "aws_asks": [{"Service": "TURN"}],
    "twilio_asks": ["Ttl=60"],
}
BROKEN = {"twilio_asks": "Ttl=x", "cloudflare_asks": "[]", "xirsys_asks": "{", "aws_asks": '{"Service": "x"}'}


class Described:
    """What the server says of itself."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def operations(self) -> list[tuple[str, str, Any]]:
        return [
            (path, method, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        ]

    def check(self, operation: Any, answer: Any) -> str:
        """That an answer is one of those described, and has nothing that is not named; returns its shape's name."""
        jsonschema = pytest.importorskip("jsonschema")
        assert str(answer.status_code) in operation["responses"], (operation["summary"], answer.text)
        content = operation["responses"][str(answer.status_code)].get("content", {})
        if not content:
            assert not answer.content
            return ""
        ((kind, described),) = content.items()
        assert answer.headers["content-type"].startswith(kind)
        if kind != "application/json":
            return ""
        strict = self.document | {"components": {"schemas": {n: closed(s) for n, s in self.schemas.items()}}}
        jsonschema.validate(answer.json(), strict | described["schema"], cls=jsonschema.Draft202012Validator)
        return str(described["schema"]["$ref"]).rpartition("/")[2]

    @property
    def schemas(self) -> dict[str, Any]:
        return dict(self.document["components"]["schemas"])


def closed(schema: Any) -> Any:
    """The same, with no property that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(value) for key, value in schema.items()}
    return inside | {"additionalProperties": False} if schema.get("type") == "object" else inside


def sent(operation: Any, body: Any) -> dict[str, Any]:
    if body is None:
        return {}
    (kind,) = operation["requestBody"]["content"]
    return {"content": body, "headers": {"Content-Type": kind}} if isinstance(body, str) else {"json": body}


def asked(operation: Any) -> str:
    if "requestBody" not in operation:
        return ""
    (content,) = operation["requestBody"]["content"].values()
    return str(content["schema"]["$ref"]).rpartition("/")[2]


def credentials(document: Any, way: str) -> dict[str, Any]:
    """What a request brings that says who calls, by a security scheme; None of them for ""."""
    if not way:
        return {}
    scheme = document["components"]["securitySchemes"][way]
    if scheme["type"] == "http":
        basic = {"auth": ("anybody", KEY)}
        return basic if scheme["scheme"] == "basic" else {"headers": {"Authorization": f"Bearer {KEY}"}}
    return {"params": {scheme["name"]: KEY}} if scheme["in"] == "query" else {}


@pytest.fixture
async def described(site: Site) -> Described:
    return Described((await site.get("/openapi.json")).json())


async def call(site: Site, path: str, method: str, way: str, document: Any, **more: Any) -> Any:
    how = credentials(document, way)
    how["headers"] = how.get("headers", {}) | more.pop("headers", {})
    place = path.format(**PLACES)
    params = (
        how.pop("params", {}) | ({"service": "turn", "username": "u"} if path == "/" else {}) | more.pop("params", {})
    )
    return await site.client.request(method, place, params=params, **how, **more)


async def test_it_is_valid(described: Described) -> None:
    pytest.importorskip("openapi_spec_validator").validate(described.document)
    identifiers = [operation["operationId"] for _, _, operation in described.operations()]
    assert len(set(identifiers)) == len(identifiers)


async def test_every_path_parameter_is_named(described: Described) -> None:
    for path, _, operation in described.operations():
        inside = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert inside == set(re.findall(r"{(\w+)}", path)), path


async def test_every_way_to_say_who_calls_is_taken_and_every_answer_is_as_described(
    site: Site, described: Described
) -> None:
    seen, ways = set(), set()
    for path, method, operation in described.operations():
        schemes = [way for each in operation["security"] for way in each if way != "signature"]
        for way in schemes or [""]:
            for body in ASKS.get(asked(operation), [None]):
                answer = await call(site, path, method, way, described.document, **sent(operation, body))
                expected = 404 if "{username}" in path else int(next(iter(operation["responses"])))
                assert answer.status_code == expected, (method, path, way, answer.text)
                seen.add(described.check(operation, answer))
                ways.add(way)
    answers = {name for name in described.schemas if not name.endswith(("_asks", "_server", "error"))}
    assert answers <= seen
    assert ways - {""} == described.document["components"]["securitySchemes"].keys() - {"signature"}


async def test_every_refusal_is_as_described(site: Site, described: Described) -> None:
    seen = set()
    for path, method, operation in described.operations():
        if operation["tags"] == ["health"]:
            continue
        answer = await call(
            site, path, method, "", described.document, **sent(operation, ASKS.get(asked(operation), [None])[0])
        )
        assert answer.status_code == 401, (path, answer.text)
        seen.add(described.check(operation, answer))
        if shape := asked(operation):
            answer = await call(
                site, path, method, operation_way(operation), described.document, **sent(operation, BROKEN[shape])
            )
            assert answer.status_code == 400, (path, answer.text)
            described.check(operation, answer)
            large = await call(site, path, method, "", described.document, **sent(operation, "x" * 70_000))
            assert large.status_code == 413
            described.check(operation, large)
    assert seen == {name for name in described.schemas if name.endswith("error")}


def operation_way(operation: Any) -> str:
    return str(next(way for each in operation["security"] for way in each if way != "signature"))


async def test_too_many_and_not_ready_are_as_described(start_web: StartWeb) -> None:
    site = await start_web(requests_per_key="1/h")
    document = (await site.get("/openapi.json")).json()
    described = Described(document)
    operation = document["paths"]["/_matrix/client/v3/voip/turnServer"]["get"]
    answers = [await call(site, "/_matrix/client/v3/voip/turnServer", "get", "bearer", document) for _ in range(3)]
    assert answers[-1].status_code == 429
    assert described.check(operation, answers[-1]) == "matrix_error"
    assert answers[-1].headers.keys() >= {"retry-after"}
    site.application.drain()
    ready = await site.get("/readyz")
    assert described.check(document["paths"]["/readyz"]["get"], ready) == "readyz"


async def test_no_key_is_needed_where_the_public_may_ask(start_web: StartWeb, site: Site) -> None:
    public = (await (await start_web(public=True)).get("/openapi.json")).json()
    keyed = (await site.get("/openapi.json")).json()
    assert {} in public["paths"]["/ice-servers"]["get"]["security"]
    assert {} not in keyed["paths"]["/ice-servers"]["get"]["security"]


async def test_every_example_for_curl_works(site: Site, described: Described) -> None:
    need("curl")
    for _, _, operation in described.operations():
        (sample,) = operation["x-codeSamples"]
        assert sample["source"] in operation["description"]
        command = sample["source"].replace("https://turn.example.org", site.url)
        command = command.replace("curl ", "curl -s -o /dev/null -w '%{http_code}' ", 1)
        running = await asyncio.create_subprocess_shell(
            command, env=os.environ | {"KEY": quote(KEY) if "=$KEY" in command else KEY}, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(running.communicate(), PATIENCE)
        expected = next(iter(operation["responses"]))
        assert output.decode()[-3:] == expected, command


async def test_the_viewer_is_here_and_asks_nobody_else(site: Site) -> None:
    page = await site.get("/docs")
    assert page.status_code == 200
    for text in (page.text, (await site.get("/static/docs.js")).text):
        assert "http://" not in text
        assert "https://" not in text
    for name in re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.text):
        file = await site.get(name)
        assert file.status_code == 200
        assert file.headers["content-security-policy"] == page.headers["content-security-policy"]
        assert "style-src 'self';" in file.headers["content-security-policy"]
    assert (await site.get("/docs/README.md")).status_code == 404
    assert (await site.get("/docs/..%2fserver.py")).status_code == 404
