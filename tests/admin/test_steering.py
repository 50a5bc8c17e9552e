"""The server as a whole: status, drain, reload, log level, and the description of it all."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.admin.conftest import Site, StartAdmin, on_socket
from tests.conftest import PASSWORD, USER, ServerProcess, free_port, wait_until
from turnsvr import __version__
from turnsvr.app import firstrun
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address


async def test_the_status_tells_of_the_server(site: Site) -> None:
    await site.client("tcp")
    status = await site.get("/status")
    assert status["version"] == __version__
    assert status["ready"] is True
    assert status["draining"] is False
    assert status["problems"] == []
    assert status["listening"] == [str(each) for each in site.application.listening]
    assert status["admin"] == [str(site.socket)]
    assert status["relay"] == ["127.0.0.1"]
    assert status["realms"] == ["example.org"]
    assert (status["sessions"]["now"], status["connections"]) == (1, 1)
    assert status["certificate_expires"].endswith("Z")
    assert status["drops"]["no_permission"] == 0


async def test_what_is_wrong_is_told_and_what_it_is_asked_of(start_admin: StartAdmin, tmp_path: Path) -> None:
    """A database that nobody serves, and a certificate of last year."""
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    expire(files)
    tls = {"certificate": files.certificate, "key": files.key}
    store = {"url": f"redis://operator:looking-glass@127.0.0.1:{free_port()}/0"}
    site = await start_admin(tls=tls, credentials={"store": store})
    answer = await site.http.get("/status")
    status = answer.json()
    assert status["ready"] is False
    assert len(status["problems"]) == 2
    assert "the certificate has expired" in status["problems"]
    ((name, state),) = status["stores"].items()
    assert "store" in name
    assert state == "unavailable"
    assert "looking-glass" not in answer.text


def expire(files: TlsFiles) -> None:
    """Have the certificate end yesterday."""
    old = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(300)).not_valid_after(now - datetime.timedelta(1))
    files.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


async def test_a_drained_server_takes_sessions_again(site: Site) -> None:
    client = await site.client()
    assert (await site.http.post("/drain")).json() == {"draining": True, "sessions": 1}
    status = await site.get("/status")
    assert (status["draining"], status["ready"]) == (True, False)
    with pytest.raises(TransactionFailed, match="508"):
        await site.client()
    await client.refresh(300)
    assert (await site.http.delete("/drain")).json() == {"draining": False, "sessions": 1}
    await site.client()
    assert (await site.get("/status"))["ready"] is True
    assert not site.application.finished.is_set()


async def test_a_server_that_has_drained_cannot_be_kept(site: Site) -> None:
    await site.http.post("/drain")
    assert site.application.finished.is_set()
    answer = await site.http.delete("/drain")
    assert answer.status_code == 409
    assert "ended" in answer.json()["error"]


async def test_without_a_file_there_is_nothing_to_reload(site: Site) -> None:
    answer = await site.http.post("/reload")
    assert answer.status_code == 409
    assert "without a settings file" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"level": "loud"},
        {"level": "info", "for": "soon"},
        {"level": "info", "for": 0},
        {"level": "info", "x": 1},
        [],
        "info",
    ],
)
async def test_a_log_level_that_means_nothing_is_refused(site: Site, body: Any) -> None:
    answer = await site.http.put("/log-level", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


async def test_what_is_not_there_is_said(site: Site) -> None:
    assert (await site.http.get("/nothing")).json() == {"error": "there is nothing here"}
    answer = await site.http.post("/sessions")
    assert (answer.status_code, answer.json()) == (405, {"error": "this is not done here"})
    assert (await site.http.get("/sessions/none")).status_code == 400
    assert (await site.http.delete("/sessions")).status_code == 400


# A process: its file, its log, its end


def settings(port: int, *, more: str = "", password: str = PASSWORD) -> str:
    return f"""
realm: example.org
listen: [udp://127.0.0.1:{port}]
relay: {{addresses: [127.0.0.1]}}
credentials: {{users: {{{USER}: {password}}}}}
{more}
"""


def caller(server: ServerProcess) -> httpx.Client:
    socket = server.file.parent / "admin.sock"
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost", timeout=30)


async def allocated(port: int, password: str = PASSWORD) -> TurnClient:
    client = TurnClient(await DatagramLink.open(Address("127.0.0.1", port)), Login(USER, password))
    try:
        await client.allocate()
    except BaseException:
        await client.link.close()
        raise
    return client


async def test_a_reload_takes_new_settings_and_cuts_nobody(tmp_path: Path) -> None:
    """What only a restart changes is tests/app/handover's."""
    port = free_port()
    with ServerProcess(settings(port), tmp_path) as server:
        client = await allocated(port)
        server.file.write_text(settings(port, password="looking-glass"))
        async with on_socket(tmp_path / "admin.sock") as http:
            answer = await http.post("/reload")
        nothing: dict[str, object] = {"restart": [], "taken": [], "successor": None, "reason": None}
        assert (answer.status_code, answer.json()) == (200, {"file": str(server.file), **nothing})
        await client.refresh(300)
        with pytest.raises(TransactionFailed):
            await allocated(port)
        await (await allocated(port, "looking-glass")).close()
        await client.close()


async def test_a_reload_with_mistakes_names_them_and_changes_nothing(tmp_path: Path) -> None:
    port = free_port()
    with ServerProcess(settings(port), tmp_path) as server:
        server.file.write_text(
            "realm: example.org\nlimits: {lifetime: soon}\ncredentials: {user: {a: looking-glass}}\n"
        )
        async with on_socket(tmp_path / "admin.sock") as http:
            answer = await http.post("/reload")
        assert answer.status_code == 422
        assert answer.json()["error"] == "the settings stay as they were"
        lifetime, user = answer.json()["mistakes"]
        assert lifetime.startswith(f"{server.file}:2: limits.lifetime: ")
        assert user.startswith(f"{server.file}:3: credentials.user: ")
        assert "looking-glass" not in answer.text
        await (await allocated(port)).close()
    assert "settings not reloaded" in server.log


def test_the_log_level_changes_for_a_while_and_for_good(tmp_path: Path) -> None:
    with ServerProcess(settings(free_port(), more="log: {level: warning}"), tmp_path) as server, caller(server) as http:

        def level() -> str:
            return str(http.get("/status").json()["log"]["level"])

        assert http.put("/log-level", json={"level": "info", "for": "10m"}).json()["level"] == "info"
        assert 590 < http.get("/status").json()["log"]["remaining"] <= 600
        http.post("/reload")
        assert http.get("/status").json()["log"] == {"level": "warning", "remaining": None}
        answer = http.put("/log-level", json={"level": "info", "for": 0.3}).json()
        assert answer["level"] == "info"
        assert 0 <= answer["remaining"] <= 0.3
        wait_until(lambda: level() == "warning", "the settings' own level")
        assert http.put("/log-level", json={"level": "info", "for": None}).json() == {
            "level": "info",
            "remaining": None,
        }
        assert level() == "info"
    assert "log level changed to=info" in server.log


async def test_a_drained_process_answers_and_ends_with_status_0(tmp_path: Path) -> None:
    port = free_port()
    with ServerProcess(settings(port), tmp_path) as server:
        client = await allocated(port)
        with caller(server) as http:
            assert http.post("/drain").json() == {"draining": True, "sessions": 1}
        assert "draining: no new sessions" in await asyncio.to_thread(
            server.wait_notified, "STATUS=draining: no new sessions"
        )
        await client.close()
        assert await asyncio.to_thread(server.wait_end) == 0
        assert not (tmp_path / "admin.sock").exists()


def test_draining_without_sessions_is_answered_before_the_end(tmp_path: Path) -> None:
    with ServerProcess(settings(free_port()), tmp_path) as server, caller(server) as http:
        assert http.post("/drain").json() == {"draining": True, "sessions": 0}
        assert server.wait_end() == 0


def test_the_start_is_told_in_one_line(tmp_path: Path) -> None:
    with ServerProcess(settings(free_port()), tmp_path) as server:
        (line,) = [line for line in server.log.splitlines() if " info " in line and "fewer open files" not in line]
        assert line.endswith(f"admin={tmp_path / 'admin.sock'}")


# What it says of itself


async def described(site: Site) -> Any:
    return await site.get("/openapi.json")


async def test_every_endpoint_is_described_with_what_it_answers(site: Site) -> None:
    description = await described(site)
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    pytest.importorskip("openapi_spec_validator").validate(description)
    assert set(operations) == {
        "POST /traces",
        "GET /traces/{id}",
        "DELETE /traces/{id}",
        "GET /sessions",
        "DELETE /sessions",
        "GET /sessions/{id}",
        "DELETE /sessions/{id}",
        "GET /status",
        "POST /drain",
        "DELETE /drain",
        "POST /reload",
        "POST /upgrade",
        "PUT /log-level",
    }
    for name, operation in operations.items():
        assert operation["summary"], name
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer["$ref"].startswith("#/components/schemas/"), name
        for status in ("400", "401", "403"):
            refusal = operation["responses"][status]["content"]["application/json"]["schema"]
            assert refusal["$ref"].endswith("/Mistake"), name
    assert description["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in json.dumps(description)


async def test_answers_are_as_they_are_described(site: Site) -> None:
    """Each property that an answer has is described with its type, and none is missing."""
    client = await site.client()
    await client.bind_channel(Address("127.0.0.1", 9))
    description = await described(site)
    for path in ("/sessions", "/sessions/{id}", "/status"):
        answer = await site.get(path.replace("{id}", "1"))
        operation = description["paths"][path]["get"]
        check(answer, operation["responses"]["200"]["content"]["application/json"]["schema"], description, path)


def check(value: Any, schema: dict[str, Any], description: dict[str, Any], where: str) -> None:
    """The part of JSON Schema that pydantic writes for these models."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = description["components"]["schemas"][name]
    if "anyOf" in schema:
        kinds = {
            "null" if value is None else "other": [
                each for each in schema["anyOf"] if (each.get("type") == "null") == (value is None)
            ]
        }
        check(value, next(iter(kinds.values()))[0], description, where)
        return
    assert isinstance(value, TYPES[schema["type"]]), where
    if "enum" in schema:
        assert value in schema["enum"], where
    if schema["type"] == "array":
        for index, each in enumerate(value):
            check(each, schema["items"], description, f"{where}[{index}]")
    elif schema["type"] == "object" and "properties" in schema:
        assert set(value) == set(schema["properties"]), where
        for name, part in schema["properties"].items():
            check(value[name], part, description, f"{where}.{name}")


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
