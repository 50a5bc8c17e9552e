"""The web hook against a web service on loopback that answers well, badly, late and not at all."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.conftest import PATIENCE, accepting
from tests.credentials.service import Request, Service, answer
from turnsvr.config.locations import shown_url
from turnsvr.credentials.api import Caller, Refusal, Unavailable
from turnsvr.credentials.hook import Hook
from turnsvr.net.tls import TlsFiles, make_context
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

NOW = 1_800_000_000.0
REALM = "example.org"
SECRET = "what both of us know"
HERE = Caller("192.0.2.1", secure=False)
PASSWORD = {"password": "wonderland"}


class Clock:
    """A monotonic clock that a test puts forward."""

    now = 5_000.0

    def __call__(self) -> float:
        return self.now


Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def hook(service: Service, clock: Clock) -> AsyncIterator[Hook]:
    found = Hook(service.url, SECRET, timeout=PATIENCE, clock=clock)
    yield found
    await found.close(at_once=True)


def says(service: Service, status: int, body: object = b"", **headers: str) -> None:
    """Have the service answer everything so."""

    async def respond(request: Request) -> bytes:
        return answer(status, body, **headers)

    service.respond = respond  # type: ignore[method-assign]


async def test_the_request_says_who_and_is_signed(service: Service, hook: Hook) -> None:
    says(service, 200, PASSWORD)
    await hook.find("Zoë", REALM, NOW + 0.9, Caller("2001:db8::7", secure=True))
    (request,) = service.requests
    assert (request.method, request.path) == ("POST", "/turn")
    assert request.values == {"username": "Zoë", "realm": REALM, "client": "2001:db8::7"}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-turnsvr-timestamp"] == "1800000000"
    signed = b"1800000000." + request.body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert request.headers["x-turnsvr-signature"] == f"v1={expected}"
    assert request.headers["user-agent"].startswith("turnsvr/")


async def test_a_password(service: Service, hook: Hook) -> None:
    says(service, 200, {**PASSWORD, "user": "customer 7", "quota": 3})
    (found,) = await hook.find("alice", REALM, NOW, HERE)
    assert found.username == "alice"
    assert found.md5_key == long_term_key("alice", REALM, "wonderland")
    assert found.sha256_key == long_term_key_sha256("alice", REALM, "wonderland")
    assert (found.quota_user, found.quota) == ("customer 7", 3)


async def test_keys(service: Service, hook: Hook) -> None:
    says(service, 200, {"key": "00" * 16})
    (found,) = await hook.find("alice", REALM, NOW, HERE)
    assert (found.md5_key, found.sha256_key, found.quota_user, found.quota) == (bytes(16), None, "alice", None)
    says(service, 200, {"key": "AB" * 16, "sha256_key": "cd" * 32})
    (found,) = await hook.find("alice", REALM, NOW, HERE)
    assert (found.md5_key, found.sha256_key) == (b"\xab" * 16, b"\xcd" * 32)


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_refusal(service: Service, hook: Hook, status: int) -> None:
    says(service, status, b"<html>nothing here</html>")
    assert await hook.find("eve", REALM, NOW, HERE) == ()
    assert hook.refusal("eve", NOW) is Refusal.UNKNOWN
    assert hook.health.available


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        (PASSWORD, {}, 0),
        (PASSWORD | {"ttl": 60}, {}, 60),
        (PASSWORD | {"ttl": 0}, {"Cache_Control": "max-age=60"}, 0),
        (PASSWORD, {"Cache_Control": "private, max-age=60"}, 60),
        (PASSWORD, {"Cache_Control": "no-store, max-age=60"}, 0),
        (PASSWORD | {"ttl": 10**9}, {}, 3_600),
        (PASSWORD, {"Cache_Control": "max-age=999999999"}, 3_600),
    ],
)
async def test_an_answer_is_remembered_as_it_says(
    service: Service, hook: Hook, clock: Clock, body: object, headers: dict[str, str], seconds: int
) -> None:
    says(service, 200, body, **headers)
    await assert_remembered(service, hook, clock, seconds)


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        (b"", {}, 5),
        ({"ttl": 60}, {}, 60),
        (b"no", {"Cache_Control": "max-age=30"}, 30),
        ({"ttl": 3_600}, {}, 300),
        (b"", {"Cache_Control": "no-cache"}, 0),
    ],
)
async def test_a_refusal_is_remembered_shortly(
    service: Service, hook: Hook, clock: Clock, body: object, headers: dict[str, str], seconds: int
) -> None:
    says(service, 404, body, **headers)
    await assert_remembered(service, hook, clock, seconds)


async def assert_remembered(service: Service, hook: Hook, clock: Clock, seconds: int) -> None:
    await hook.find("alice", REALM, NOW, HERE)
    if seconds:
        clock.now += seconds - 0.01
        await hook.find("alice", REALM, NOW, HERE)
        assert len(service.requests) == 1
        clock.now += 0.02
    await hook.find("alice", REALM, NOW, HERE)
    assert len(service.requests) == 2


async def test_what_is_remembered_is_for_that_user_realm_and_client(service: Service, hook: Hook) -> None:
    says(service, 200, {**PASSWORD, "ttl": 60})
    for name, realm, client in (
        ("alice", "a", "::1"),
        ("bob", "a", "::1"),
        ("alice", "b", "::1"),
        ("alice", "a", "::2"),
    ):
        await hook.find(name, realm, NOW, Caller(client, secure=False))
    assert len(service.requests) == 4


async def test_a_user_is_forgotten_wherever_from_and_others_are_not(service: Service, hook: Hook) -> None:
    says(service, 200, {**PASSWORD, "ttl": 60})
    alices = [Caller(f"192.0.2.{number}", secure=False) for number in range(3)]
    for caller in alices:
        await hook.find("alice", REALM, NOW, caller)
    await hook.find("alice", "elsewhere", NOW, HERE)
    await hook.find("bob", REALM, NOW, HERE)
    hook.forget_user(REALM, "alice")
    assert [hook.find_now("alice", REALM, NOW, caller) for caller in alices] == [None] * 3
    assert hook.find_now("alice", "elsewhere", NOW, HERE)
    assert hook.find_now("bob", REALM, NOW, HERE)


async def test_an_answer_that_is_under_way_when_its_user_is_forgotten_is_not_remembered(
    service: Service, hook: Hook
) -> None:
    asked, let = asyncio.Event(), asyncio.Event()

    async def respond(request: Request) -> bytes:
        asked.set()
        await let.wait()
        return answer(200, {**PASSWORD, "ttl": 60})

    service.respond = respond  # type: ignore[method-assign]
    asking = asyncio.ensure_future(hook.find("alice", REALM, NOW, HERE))
    await asked.wait()
    hook.forget_user(REALM, "alice")
    let.set()
    assert await asking
    assert hook.find_now("alice", REALM, NOW, HERE) is None


async def test_made_up_names_push_no_user_out(service: Service, clock: Clock) -> None:
    async def respond(request: Request) -> bytes:
        return answer(200, {**PASSWORD, "ttl": 60}) if request.values["username"] == "alice" else answer(404)

    service.respond = respond  # type: ignore[method-assign]
    hook = Hook(service.url, SECRET, timeout=PATIENCE, max_refused=10, clock=clock)
    await hook.find("alice", REALM, NOW, HERE)
    for number in range(20):
        await hook.find(f"made up {number}", REALM, NOW, HERE)
    assert len(service.requests) == 21
    await hook.find("alice", REALM, NOW, HERE)
    await hook.find("made up 19", REALM, NOW, HERE)
    assert len(service.requests) == 21
    await hook.find("made up 9", REALM, NOW, HERE)
    assert len(service.requests) == 22
    await hook.close(at_once=True)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (answer(500, b"oops"), "status 500"),
        (answer(401), "status 401: does it know the secret"),
        (answer(302, b"", Location="http://127.0.0.1:9/"), "status 302"),
        (answer(204), "status 204"),
        (answer(200, b"welcome"), "no JSON"),
        (answer(200, []), "no JSON object"),
        (answer(200, {}), "neither password nor key"),
        (answer(200, PASSWORD | {"key": "00" * 16}), "or both"),
        (answer(200, {"password": 7}), "a password"),
        (answer(200, {"password": ""}), "a password"),
        (answer(200, {"password": "\ud800"}), "no Unicode"),
        (answer(200, {"key": "00" * 15}), "key without"),
        (answer(200, {"sha256_key": "00" * 16}), "sha256_key without"),
        (answer(200, PASSWORD | {"quota": -1}), "quota"),
        (answer(200, PASSWORD | {"quota": True}), "quota"),
        (answer(200, PASSWORD | {"user": "a\nb"}), "user"),
        (answer(200, PASSWORD | {"ttl": -1}), "ttl"),
        (answer(200, PASSWORD | {"ttl": "1h"}), "ttl"),
        (answer(200, b'{"password": "x", "ttl": NaN}'), "ttl"),
        (answer(200, PASSWORD | {"x": "y" * 20_000}), "more than 16384 bytes"),
        (answer(200, gzip.compress(bytes(10**6)), Content_Encoding="gzip"), "compressed"),
        (answer(200, b"[" * 10_000), "no JSON"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", "no answer in 1 s"),
    ],
)
async def test_any_other_answer_is_none(service: Service, response: bytes, reason: str) -> None:
    async def respond(request: Request) -> bytes:
        return response

    service.respond = respond  # type: ignore[method-assign]
    hook = Hook(service.url + "?key=hidden", SECRET, timeout=1)
    with capture_logs() as logs:
        with pytest.raises(Unavailable, match=reason) as caught:
            await hook.find("alice", REALM, NOW, HERE)
        await hook.close(at_once=True)
    assert [entry["event"] for entry in logs] == ["credential hook unavailable"]
    assert repr(logs).count(service.url) == 1
    assert not hook.health.available
    for text in (str(caught.value), repr(logs)):
        assert "hidden" not in text
        assert SECRET not in text
        assert "wonderland" not in text


async def test_a_service_that_says_nothing_costs_the_time_agreed(service: Service) -> None:
    async def respond(request: Request) -> bytes:
        await asyncio.sleep(PATIENCE)
        return answer(200, PASSWORD)

    service.respond = respond  # type: ignore[method-assign]
    hook = Hook(service.url, SECRET, timeout=0.1)
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match=r"no answer in 0\.1 s"):
        await hook.find("alice", REALM, NOW, HERE)
    assert asyncio.get_running_loop().time() - started < PATIENCE / 2
    await hook.close(at_once=True)


async def test_a_service_that_drips_costs_no_more(service: Service) -> None:
    """Each part comes within the time, all of them never."""
    finished = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while not finished.is_set() and not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)
        writer.transport.abort()

    async with accepting(drip) as port:
        hook = Hook(f"http://127.0.0.1:{port}/", SECRET, timeout=0.2)
        with pytest.raises(Unavailable, match=r"no answer in 0\.2 s"):
            await hook.find("alice", REALM, NOW, HERE)
        await hook.close(at_once=True)
        finished.set()


async def test_nobody_listens_and_then_somebody_does(service: Service, hook: Hook) -> None:
    await service.stop()
    with pytest.raises(Unavailable):
        await hook.find("alice", REALM, NOW, HERE)
    says(service, 200, PASSWORD)
    await service.start()
    assert await hook.find("alice", REALM, NOW, HERE)
    assert hook.health.available


async def test_names_that_can_be_nobodys_are_not_asked(service: Service, hook: Hook) -> None:
    for name in ("", "a\0b", "x" * 509):
        assert await hook.find(name, REALM, NOW, HERE) == ()
    assert hook.by_userhash(bytes(32), REALM) is None
    assert service.requests == []


async def test_many_users_at_once_on_few_connections(service: Service, hook: Hook) -> None:
    async def respond(request: Request) -> bytes:
        await asyncio.sleep(0.001)
        return answer(200, PASSWORD)

    service.respond = respond  # type: ignore[method-assign]
    names = [f"user {number % 100}" for number in range(500)]
    found = await asyncio.gather(*(hook.find(name, REALM, NOW, HERE) for name in names))
    assert [each[0].username for each in found] == names
    assert len(service.requests) == 100
    assert service.at_once <= 32
    assert service.connections <= 32


async def test_the_environment_s_proxy_is_not_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    says(service, 200, PASSWORD)
    hook = Hook(service.url, SECRET, timeout=PATIENCE)
    assert await hook.find("alice", REALM, NOW, HERE)
    await hook.close(at_once=True)


async def test_tls_is_checked_against_the_authority(certificate: TlsFiles) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(200, PASSWORD, Connection="close"))
        await writer.drain()

    async with accepting(serve, tls=make_context(certificate)) as port:
        url = f"https://127.0.0.1:{port}/"
        trusting = Hook(url, SECRET, timeout=PATIENCE, ca=certificate.certificate)
        assert await trusting.find("alice", REALM, NOW, HERE)
        await trusting.close(at_once=True)
        wary = Hook(url, SECRET, timeout=PATIENCE)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await wary.find("alice", REALM, NOW, HERE)
        await wary.close(at_once=True)


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Hook("https://127.0.0.1/", SECRET, timeout=1, ca=tmp_path / "none.pem")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ssl.SSLError):
        Hook("https://127.0.0.1/", SECRET, timeout=1, ca=tmp_path / "empty.pem")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://app.example.org/turn?key=1", "https://app.example.org/turn"),
        ("http://[::1]:8000/turn", "http://[::1]:8000/turn"),
    ],
)
def test_an_address_is_shown_without_its_query(url: str, shown: str) -> None:
    assert shown_url(url) == shown


async def test_a_connection_that_is_reset_has_a_reason_in_the_log() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with accepting(reset) as port:
        hook = Hook(f"http://127.0.0.1:{port}/", SECRET, timeout=PATIENCE)
        with pytest.raises(Unavailable, match=r": \S+"):
            await hook.find("alice", REALM, NOW, HERE)
        await hook.close(at_once=True)
