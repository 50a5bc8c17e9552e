"""Who may reach the admin interface over TCP, and that no web page is among them."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.admin.conftest import TOKEN, Site, StartAdmin
from turnsvr.admin.guard import Guard
from turnsvr.app.errors import StartError
from turnsvr.config.settings import Settings
from turnsvr.net.tls import TlsFiles
from turnsvr.web.middleware import AsgiEvent, AsgiReceive, AsgiScope, AsgiSend

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def guarded(start_admin: StartAdmin) -> Site:
    return await start_admin(admin={"socket": "off", "listen": "http://127.0.0.1:0", "token": TOKEN})


def url_of(site: Site) -> str:
    admin = site.application.admin
    assert admin is not None
    return next(each for each in admin.listening if each.startswith("http"))


async def call(site: Site, headers: dict[str, str], method: str = "GET", path: str = "/sessions") -> httpx.Response:
    async with httpx.AsyncClient(base_url=url_of(site), trust_env=False) as client:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        return await client.request(method, path, headers=httpx.Headers(raw))


async def test_the_token_lets_in(guarded: Site) -> None:
    answer = await call(guarded, HEADERS)
    assert answer.status_code == 200
    assert answer.json()["sessions"] == []
    assert (await call(guarded, {"Authorization": f"bearer  {TOKEN}"})).status_code == 200


@pytest.mark.parametrize("path", ["/sessions", "/status", "/openapi.json", "/nothing"])
async def test_without_the_token_there_is_nothing_to_see(guarded: Site, path: str) -> None:
    answer = await call(guarded, {}, path=path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {"error": "a token is needed, as Authorization: Bearer"}


@pytest.mark.parametrize(
    "offered", [f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", TOKEN, "Bearer \xe9", f"Bearer {TOKEN[:-1]}"]
)
async def test_a_wrong_token_is_refused_and_never_logged(guarded: Site, offered: str) -> None:
    with capture_logs() as logs:
        answer = await call(guarded, {"Authorization": offered})
    assert answer.status_code == 401
    assert [(line["event"], line["client"]) for line in logs] == [("admin request refused", "127.0.0.1")]
    assert TOKEN[:8] not in str(logs)


class At:
    """A guard at a time of ours, asked from addresses of ours; what it answers are statuses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.headers: list[tuple[bytes, bytes]] = []
        self._guard = Guard(self._let_in, lambda: TOKEN, lambda: self.now)

    async def ask(self, host: str, token: str) -> int:
        headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {token}".encode())]
        scope: AsgiScope = {"type": "http", "scheme": "http", "client": (host, 1), "headers": headers, "method": "GET"}
        statuses: list[int] = []

        async def send(event: AsgiEvent) -> None:
            if event["type"] == "http.response.start":
                statuses.append(event["status"])
                self.headers = event.get("headers", [])

        await self._guard(scope, self._receive, send)
        return statuses[0]

    async def _let_in(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def _receive(self) -> AsgiEvent:
        return {"type": "http.request"}


async def test_wrong_tokens_of_an_address_are_limited() -> None:
    at = At()
    assert [await at.ask("192.0.2.1", "wrong") for _ in range(8)] == [401] * 5 + [429] * 3
    assert await at.ask("192.0.2.1", TOKEN) == 429, "or the limit would tell who goes on guessing"
    at.now = 0.25
    assert await at.ask("192.0.2.1", TOKEN) == 200
    assert [await at.ask("192.0.2.1", "wrong") for _ in range(2)] == [401, 429]


async def test_right_tokens_are_not_limited() -> None:
    at = At()
    assert {await at.ask("192.0.2.1", TOKEN) for _ in range(100)} == {200}


async def test_a_limited_answer_says_when_to_come_back() -> None:
    at = At()
    for _ in range(6):
        await at.ask("192.0.2.1", "wrong")
    assert (b"retry-after", b"1") in at.headers


async def test_no_address_is_limited_for_another_s_tokens() -> None:
    at = At()
    for _ in range(6):
        await at.ask("192.0.2.1", "wrong")
    others = [await at.ask(f"198.51.100.{host}", TOKEN) for host in range(8)]
    assert 200 in others, "all share one of thousands of slots"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
async def test_a_web_page_is_refused_whatever_it_knows(guarded: Site, method: str) -> None:
    for origin in ("https://evil.example", "null", url_of(guarded)):
        answer = await call(guarded, {**HEADERS, "Origin": origin}, method)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5766", "127.0.0.1.evil.example", "", "[::1", "a b", "1.2.3"]
)
async def test_a_name_that_was_bound_to_our_address_is_refused(guarded: Site, host: str) -> None:
    answer = await call(guarded, {**HEADERS, "Host": host})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:80", "192.0.2.1"])
async def test_addresses_and_localhost_are_no_such_names(guarded: Site, host: str) -> None:
    assert (await call(guarded, {**HEADERS, "Host": host})).status_code == 200


async def test_web_sockets_are_refused(guarded: Site) -> None:
    with pytest.raises(InvalidStatus, match="404"):
        await connect(url_of(guarded).replace("http", "ws"), additional_headers=HEADERS)


async def test_https_takes_the_certificate_of_turn_clients(start_admin: StartAdmin, certificate: TlsFiles) -> None:
    site = await start_admin(admin={"socket": "off", "listen": "https://127.0.0.1:0", "token": TOKEN})
    trusted = ssl.create_default_context(cafile=str(certificate.certificate))
    async with httpx.AsyncClient(base_url=url_of(site), verify=trusted, trust_env=False) as client:
        assert (await client.get("/sessions", headers=HEADERS)).status_code == 200
        assert (await client.get("/sessions", headers={**HEADERS, "Host": "turn.example.org"})).status_code == 200
        assert (await client.get("/sessions")).status_code == 401


async def test_https_without_a_certificate_is_no_start(start_admin: StartAdmin) -> None:
    with pytest.raises(StartError, match="needs a certificate"):
        await start_admin(
            admin={"socket": "off", "listen": "https://127.0.0.1:0", "token": TOKEN},
            tls=None,
            listen="udp://127.0.0.1:0",
        )


async def test_a_port_that_is_taken_is_no_start(guarded: Site, start_admin: StartAdmin) -> None:
    with pytest.raises(StartError, match=r"admin\.listen: .* is in use"):
        await start_admin(admin={"socket": "off", "listen": url_of(guarded), "token": TOKEN})


async def test_a_reload_changes_the_token_and_nothing_else(guarded: Site) -> None:
    application = guarded.application
    admin: dict[str, Any] = {"socket": "off", "listen": "http://127.0.0.1:1", "token": "another token"}
    values = {name: getattr(application.settings, name) for name in Settings.model_fields}
    assert application.reload(Settings.model_validate(values | {"admin": admin})) == ["admin.listen"]
    assert (await call(guarded, HEADERS)).status_code == 401
    assert (await call(guarded, {"Authorization": "Bearer another token"})).status_code == 200


async def test_a_body_is_bounded(guarded: Site) -> None:
    async with httpx.AsyncClient(base_url=url_of(guarded), trust_env=False) as client:
        answer = await client.put("/log-level", headers=HEADERS, content=b"x" * 100_000)
    assert answer.status_code == 413


async def test_socket_and_listener_serve_together(start_admin: StartAdmin) -> None:
    site = await start_admin(admin={"listen": "http://127.0.0.1:0", "token": TOKEN})
    admin = site.application.admin
    assert admin is not None
    assert admin.listening[0] == str(site.socket)
    assert (await site.http.get("/sessions", headers={"Host": "evil.example"})).status_code == 200
    assert (await call(site, HEADERS)).status_code == 200
    await site.application.stop()
    assert admin.listening == ()
    assert not site.socket.exists()
