"""The HTTP listener: TLS whose certificate changes, ports in use, proxies, start and stop."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect

from tests.conftest import PATIENCE, Serve
from tests.web.conftest import KEY, SECRET, StartWeb
from turnsvr.app import firstrun
from turnsvr.app.application import Application
from turnsvr.app.errors import StartError
from turnsvr.config.ranges import AddressRange
from turnsvr.config.settings import Settings
from turnsvr.config.websettings import WebSettings
from turnsvr.net.tls import TlsFiles
from turnsvr.web.connections import DEADLINES, Phase
from turnsvr.web.middleware import AsgiReceive, AsgiScope, AsgiSend, Forwarded
from turnsvr.web.server import WebServer

TRUSTED = (AddressRange.parse("10.0.0.0/8"), AddressRange.parse("::1"))


def fingerprint(port: int) -> str:
    """Of the certificate that is served now."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def stored(files: TlsFiles) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(files.certificate.read_text())).hexdigest()


async def test_https_takes_the_certificate_of_turn_clients(start_web: StartWeb, certificate: TlsFiles) -> None:
    site = await start_web(listen="https://127.0.0.1:0")
    assert (await site.get("/healthz")).status_code == 200
    port = site.client.base_url.port
    assert port is not None
    assert await asyncio.to_thread(fingerprint, port) == stored(certificate)


async def test_a_certificate_of_its_own_is_read_again(start_web: StartWeb, tmp_path: Path) -> None:
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    tls = {"certificate": files.certificate, "key": files.key}
    site = await start_web(listen="https://127.0.0.1:0", tls=tls)
    port = site.client.base_url.port
    assert port is not None
    first = await asyncio.to_thread(fingerprint, port)
    assert first == stored(files)
    firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    server = site.application.web
    assert isinstance(server, WebServer)
    server.reload_certificate()
    second = await asyncio.to_thread(fingerprint, port)
    assert second == stored(files) != first
    files.key.write_text("no key any more")
    server.reload_certificate()
    assert await asyncio.to_thread(fingerprint, port) == second
    assert (await site.get("/healthz")).status_code == 200


async def start(web: dict[str, Any], **sections: Any) -> None:
    usual: dict[str, Any] = {
        "listen": ["udp://127.0.0.1:0"],
        "relay": {"addresses": ["127.0.0.1"]},
        "credentials": {"secret": SECRET},
        "web": web,
    }
    application = Application(Settings.model_validate(usual | sections), sinks=())
    try:
        await application.start()
    finally:
        await application.stop()


async def test_a_port_in_use_is_named_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"web\.listen: http://127\.0\.0\.1:{port}: port {port}/tcp is in use"):
            await start({"listen": f"http://127.0.0.1:{port}"})


@pytest.mark.parametrize(
    ("web", "problem"),
    [
        ({"listen": "https://127.0.0.1:0"}, "https:// needs a certificate"),
        ({"listen": "http://192.0.2.77:0"}, "this host has no address 192.0.2.77"),
        ({"listen": "https://127.0.0.1:0", "tls": {"certificate": "/no/c", "key": "/no/k"}}, "cannot read /no/c"),
    ],
)
async def test_what_cannot_be_served_is_told_in_a_line(web: dict[str, Any], problem: str) -> None:
    with pytest.raises(StartError, match=problem) as caught:
        await start(web)
    assert "\n" not in str(caught.value)


async def test_without_a_shared_secret_there_are_no_credentials(start_web: StartWeb) -> None:
    site = await start_web(public=True, sections={"credentials": {"users": {"alice": "wonderland"}}})
    answer = await site.get("/ice-servers")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the server has no credentials to give"}


async def test_stopping_frees_the_port(serve: Serve) -> None:
    application = await serve(credentials={"secret": SECRET}, web={"listen": "http://127.0.0.1:0"})
    assert application.web is not None
    port = application.web.listening[0].port
    await application.stop()
    await application.stop()
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: "])
async def test_who_sends_no_request_is_hung_up_on(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setitem(DEADLINES, Phase.HEAD, 0.3)
    site = await start_web()
    assert (await site.get("/healthz")).status_code == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", site.client.base_url.port)
    writer.write(head)
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
    await writer.wait_closed()
    assert (await site.get("/healthz")).status_code == 200


async def test_other_settings_reload_while_http_is_served(start_web: StartWeb) -> None:
    site = await start_web()
    settings = site.application.settings
    rotated = settings.credentials.model_copy(
        update={"secrets": Settings.model_validate({"credentials": {"secret": "a new one"}}).credentials.secrets}
    )
    assert site.application.reload(settings.model_copy(update={"credentials": rotated})) == []
    assert (await site.get("/healthz")).status_code == 200
    changed = settings.model_copy(update={"web": None})
    assert site.application.reload(changed) == ["web"]
    assert (await site.get("/healthz")).status_code == 200


async def test_a_reload_leaves_no_application_behind(start_web: StartWeb) -> None:
    site = await start_web()
    settings = site.application.settings
    assert settings.web is not None
    gc.collect()
    before = sum(isinstance(each, Starlette) for each in gc.get_objects())
    for seconds in range(100, 105):
        changed = settings.web.model_copy(update={"host": f"turn{seconds}.example.org"})
        assert site.application.reload(settings.model_copy(update={"web": changed})) == []
    assert (await site.get("/healthz")).status_code == 200
    gc.collect()
    assert sum(isinstance(each, Starlette) for each in gc.get_objects()) == before


async def test_keys_are_replaced_and_rooms_live_on(start_web: StartWeb) -> None:
    site = await start_web()
    settings = site.application.settings
    assert settings.web is not None
    new_key = {"name": "shop", "key": "another key of the shop", "origins": "https://new.example.org"}
    keyed = WebSettings.model_validate({"keys": [new_key], "host": "turn.example.org", "requests_per_address": 0})
    async with connect(f"{site.url.replace('http', 'ws')}/signalling", proxy=None) as member:
        await member.send(json.dumps({"type": "join"}))
        room = json.loads(await member.recv())["room"]
        assert site.application.reload(settings.model_copy(update={"web": keyed})) == ["web.listen"]
        await member.send(json.dumps({"type": "join", "room": room}))
        assert json.loads(await member.recv())["type"] == "joined"
    old, new = {"key": KEY}, {"key": "another key of the shop"}
    assert (await site.get("/ice-servers", params=old)).status_code == 401
    answer = await site.get("/ice-servers", params=new, headers={"Origin": "https://new.example.org"})
    assert answer.json()["iceServers"][0]["urls"][0].startswith("stun:turn.example.org:")
    assert answer.headers["access-control-allow-origin"] == "https://new.example.org"
    in_use = site.application.settings.web
    assert in_use is not None
    assert in_use.listen == settings.web.listen
    same = in_use.model_copy(update={"keys": ()})
    assert site.application.reload(site.application.settings.model_copy(update={"web": same})) == []
    assert (await site.get("/ice-servers", params=new)).status_code == 401


# Who the client is


async def seen(headers: list[tuple[str, str]], client: str, kind: str = "http") -> dict[str, Any]:
    """What an application is told of a request that came from this address."""
    scopes: list[AsgiScope] = []

    async def application(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        scopes.append(scope)

    raw = [(b"host", b"inner:80"), *((name.encode(), value.encode()) for name, value in headers)]
    scope = {"type": kind, "scheme": kind.replace("websocket", "ws"), "client": (client, 1), "headers": raw}
    await Forwarded(application, TRUSTED)(scope, None, None)  # type: ignore[arg-type]
    (passed,) = scopes
    return {
        "client": passed["client"][0],
        "scheme": passed["scheme"],
        "host": dict(passed["headers"])[b"host"].decode(),
        "direct": passed["state"]["direct"],
        "names": [name for name, _ in passed["headers"]],
    }


FORWARDED = [
    ("x-forwarded-for", "198.51.100.9, 203.0.113.7, 10.0.0.2"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "turn.example.org"),
]


async def test_a_trusted_proxy_is_believed() -> None:
    for proxy in ("10.9.9.9", "::ffff:10.9.9.9", "::1"):
        found = await seen(FORWARDED, proxy)
        assert (found["client"], found["scheme"], found["host"]) == ("203.0.113.7", "https", "turn.example.org")
    assert (await seen(FORWARDED, "::1", "websocket"))["scheme"] == "wss"


async def test_nobody_else_is() -> None:
    found = await seen(FORWARDED, "203.0.113.99")
    assert (found["client"], found["scheme"], found["host"]) == ("203.0.113.99", "http", "inner:80")
    assert not found["direct"]
    assert found["names"] == [b"host"]


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.7:5000", "203.0.113.7"),
        ("[2001:db8::7]:5000", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("unknown", "10.0.0.1"),
        ("10.0.0.3, 10.0.0.4", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("203.0.113.7, evil", "10.0.0.1"),
    ],
)
async def test_forms_of_forwarded_addresses(value: str, client: str) -> None:
    assert (await seen([("x-forwarded-for", value)], "10.0.0.1"))["client"] == client
