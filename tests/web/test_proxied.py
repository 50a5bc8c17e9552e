"""HTTP behind a balancer that speaks the PROXY protocol: the client is the one in the header."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_websocket

from tests.conftest import PATIENCE, Serve
from tests.net.test_streams import insecure, until
from tests.web.conftest import Site, StartWeb
from turnsvr.config.websettings import WebProxySettings
from turnsvr.net import proxied
from turnsvr.net.proxyheader import HeaderRefusal, write_header
from turnsvr.stun.address import Address
from turnsvr.web.server import WebServer

STRANGER = Address("192.0.2.7", 4711)
OPERATOR = Address("10.1.2.3", 4711)
HERE = {"trusted": "127.0.0.1"}


def header(client: Address) -> bytes:
    return write_header(client, Address("198.51.100.1", 443))


async def opened(site: Site, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = site.client.base_url.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    return reader, writer


async def status(site: Site, said: bytes, path: str = "/metrics", tls: ssl.SSLContext | None = None) -> int:
    """Of one request behind a header; 0 where the connection ends without an answer."""
    reader, writer = await opened(site, said)
    try:
        async with asyncio.timeout(PATIENCE):
            if tls is not None:
                await writer.start_tls(tls)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
    except OSError:
        return 0
    finally:
        writer.transport.abort()
    return int(answer.split()[1]) if answer else 0


def refusals(site: Site) -> dict[HeaderRefusal, int]:
    server = site.application.web
    assert isinstance(server, WebServer)
    assert server._connections is not None
    return dict(server._connections.header_refusals.counts)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_access_is_by_the_client_in_the_header(start_web: StartWeb, scheme: str) -> None:
    site = await start_web(listen=f"{scheme}://127.0.0.1:0", proxy=HERE, metrics="10.1.0.0/16")
    tls = insecure() if scheme == "https" else None
    assert await status(site, header(OPERATOR), tls=tls) == 200
    assert await status(site, header(STRANGER), tls=tls) == 403
    assert await status(site, b"PROXY TCP4 10.1.0.1 10.1.0.2 1 2\r\n", tls=tls) == 200
    assert await status(site, b"PROXY UNKNOWN\r\n", tls=tls) == 403


async def test_x_forwarded_for_is_the_client_s_word_unless_that_is_trusted(start_web: StartWeb) -> None:
    """A balancer that is trusted for its header is not thereby a proxy that is trusted for others."""
    site = await start_web(proxy=HERE, metrics="10.1.0.0/16", trusted_proxies="10.9.0.1")
    forged = "/metrics HTTP/1.1\r\nX-Forwarded-For: 10.1.2.3\r\nX: "
    assert await status(site, header(STRANGER), forged) == 403
    assert await status(site, header(Address("10.9.0.1", 1)), forged) == 200


async def test_others_are_refused(start_web: StartWeb) -> None:
    site = await start_web(proxy={"trusted": "192.0.2.0/24"})
    assert await status(site, header(OPERATOR)) == 0
    assert await status(site, b"") == 0
    assert refusals(site) == {HeaderRefusal.UNTRUSTED: 2}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", HeaderRefusal.MALFORMED),
        (b"PROXY ", HeaderRefusal.MALFORMED),
        (b"PROXY UNKNOWN " + b"x" * 120, HeaderRefusal.TOO_LONG),
    ],
)
async def test_requests_without_a_header_are_refused(start_web: StartWeb, said: bytes, why: HeaderRefusal) -> None:
    site = await start_web(proxy=HERE)
    assert await status(site, said) == 0
    assert refusals(site) == {why: 1}


async def test_a_header_has_a_deadline(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "HEADER_SECONDS", 0.2)
    site = await start_web(proxy=HERE)
    reader, writer = await opened(site, b"PROXY")
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    assert refusals(site) == {HeaderRefusal.LATE: 1}
    writer.close()


async def test_limits_are_the_clients(start_web: StartWeb) -> None:
    """Nine clients come through one balancer, two connections are one client's limit."""
    site = await start_web(proxy=HERE, connections_per_address=2, page=True)
    others = [await opened(site, header(Address(f"192.0.2.{100 + n}", 1))) for n in range(9)]
    mine = [await opened(site, header(STRANGER._replace(port=n))) for n in range(3)]
    await until(mine[0][0].at_eof)
    assert not any(reader.at_eof() for reader, _ in (*others, *mine[1:]))
    for _, writer in (*others, *mine):
        writer.close()


async def test_rates_are_the_clients(start_web: StartWeb) -> None:
    site = await start_web(proxy=HERE, public=True, requests_per_address="1/h")
    path = "/ice-servers"
    first = await status(site, header(STRANGER), path)
    assert (first, await status(site, header(STRANGER), path)) == (first, 429)
    assert await status(site, header(STRANGER._replace(host="192.0.2.8")), path) == first


async def test_a_websocket_is_the_clients(start_web: StartWeb) -> None:
    site = await start_web(proxy=HERE, signalling={"sessions_per_address": 1})

    async def joined(client: Address) -> Any:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", site.client.base_url.port))
        await loop.sock_sendall(sock, header(client))
        url = site.url.replace("http", "ws") + "/signalling"
        return await connect_websocket(url, sock=sock, proxy=None)

    first = await joined(STRANGER)
    second = await joined(STRANGER._replace(host="192.0.2.8"))
    assert first.state == second.state
    with pytest.raises(Exception, match=r"403|429|503"):
        await joined(STRANGER)
    await first.close()
    await second.close()


async def test_a_listener_alone(start_web: StartWeb) -> None:
    site = await start_web(proxy={**HERE, "listen": ["https://127.0.0.1:0"]})
    assert await status(site, b"") == 200


async def test_a_reload_changes_who_is_asked(start_web: StartWeb) -> None:
    site = await start_web(metrics="10.1.0.0/16")
    assert await status(site, b"") == 403
    settings = site.application.settings
    assert settings.web is not None
    web = settings.web.model_copy(update={"proxy": WebProxySettings.model_validate(HERE)})
    assert site.application.reload(settings.model_copy(update={"web": web})) == []
    assert await status(site, header(OPERATOR)) == 200
    assert await status(site, b"") == 0


async def test_stop_while_a_header_is_awaited(serve: Serve, start_web: StartWeb) -> None:
    site = await start_web(proxy=HERE)
    reader, writer = await opened(site, b"PROXY ")
    server = site.application.web
    assert isinstance(server, WebServer)
    await until(lambda: server.connections == 1)
    async with asyncio.timeout(3):
        await site.application.stop()
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
