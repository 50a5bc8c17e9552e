"""What a connection may wait for, and for how long: slow heads and bodies, single bytes, answers that nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import PATIENCE
from tests.net.test_streams import until
from tests.web.conftest import Site, StartWeb
from turnsvr.web import middleware
from turnsvr.web.connections import DEADLINES
from turnsvr.web.server import WebServer

HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
GET = HEAD + b"\r\n"
POST = b"POST /v1/get-ice-server-config HTTP/1.1\r\nHost: a\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PAGE = b"GET /static/main.js HTTP/1.1\r\nHost: a\r\n\r\n"

Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every deadline is over soon."""
    for wait in DEADLINES:
        monkeypatch.setitem(DEADLINES, wait, 0.5)
    monkeypatch.setattr(middleware, "_BODY_SECONDS", 0.4)


@asynccontextmanager
async def connected(site: Site, *, tls: bool = False) -> AsyncIterator[Connected]:
    context = ssl.create_default_context() if tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", site.client.base_url.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What came until the connection ended."""
    came = b""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while more := await reader.read(65_536):
                came += more
    return came


WAITING = {
    "nothing": (b"", b""),
    "half a head": (HEAD, b"a"),
    "the second head": (GET + HEAD, b"a"),
    "the third head": (GET + GET + HEAD, b"a"),
    "a body": (POST + b"Content-Length: 99\r\n\r\n{", b" "),
    "a chunked body": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"),
    "half a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{", b" "),
    "a body of a GET": (HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "a chunked body of a GET": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "100-continue": (POST + b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n", b" "),
}


@pytest.mark.parametrize("what", WAITING)
async def test_single_bytes_extend_no_deadline(start_web: StartWeb, what: str) -> None:
    site = await start_web()
    said, more = WAITING[what]
    async with connected(site) as (reader, writer):
        writer.write(said)
        ended = asyncio.ensure_future(end_of(reader))
        begun = asyncio.get_running_loop().time()
        while not ended.done():
            await asyncio.wait({ended}, timeout=0.05)
            writer.write(more)
        assert asyncio.get_running_loop().time() - begun < 5
        assert ended.result().count(b"HTTP/1.1 200") == said.count(GET) + (" of a GET" in what)


@pytest.mark.parametrize("tls", [False, True])
async def test_an_idle_connection_ends(start_web: StartWeb, *, tls: bool) -> None:
    site = await start_web(listen="https://127.0.0.1:0" if tls else "http://127.0.0.1:0")
    async with connected(site, tls=tls) as (reader, writer):
        writer.write(GET)
        assert (await end_of(reader)).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00"])
async def test_a_tls_handshake_ends(start_web: StartWeb, hello: bytes) -> None:
    site = await start_web(listen="https://127.0.0.1:0")
    async with connected(site) as (reader, writer):
        writer.write(hello)
        assert await end_of(reader) == b""


@pytest.mark.parametrize("tls", [False, True])
async def test_who_does_not_read_is_hung_up_on(start_web: StartWeb, *, tls: bool) -> None:
    site = await start_web(listen="https://127.0.0.1:0" if tls else "http://127.0.0.1:0")
    async with connected(site, tls=tls) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(PAGE * 2_000)
        await none_left(site)


@pytest.mark.parametrize("path", [b"/signalling", b"/socket.io/?EIO=4&transport=websocket"])
async def test_a_websocket_that_does_not_read_is_hung_up_on(start_web: StartWeb, path: bytes) -> None:
    """It floods itself with pongs, which only the connection itself bounds."""
    site = await start_web()
    async with connected(site) as (reader, writer):
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        ping = b"\x89\xfd" + bytes(4) + b"p" * 125
        flood = asyncio.ensure_future(flooded(writer, ping * 1_000))
        await none_left(site)
        flood.cancel()


async def flooded(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(data)
            await writer.drain()


async def none_left(site: Site) -> None:
    """Wait until the server has no HTTP connection any more."""
    web = site.application.web
    assert isinstance(web, WebServer)
    await until(lambda: web.connections == 0)


async def test_an_upgrade_that_says_nothing_ends(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnsvr.web.socketserver._UPGRADE_SECONDS", 0.3)
    site = await start_web()
    opened = await site.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
    sid = json.loads(opened.text[1:])["sid"]
    async with connected(site) as (reader, writer):
        path = f"/socket.io/?EIO=4&transport=websocket&sid={sid}".encode()
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + UPGRADE)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        await end_of(reader)


async def test_a_session_that_becomes_no_member_ends(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnsvr.web.signalling._SWEEP_SECONDS", 0.2)
    site = await start_web()
    async with connected(site) as (reader, writer):
        writer.write(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\n" + UPGRADE)
        await end_of(reader)


@pytest.mark.parametrize("size", [65_537, 99_999_999_999_999])
async def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(middleware, "_BODY_SECONDS", PATIENCE)
    for wait in DEADLINES:
        monkeypatch.setitem(DEADLINES, wait, PATIENCE)
    site = await start_web()
    async with connected(site) as (reader, writer):
        writer.write(POST + f"Content-Length: {size}\r\n\r\n".encode())
        assert (await end_of(reader)).startswith(b"HTTP/1.1 413 ")
