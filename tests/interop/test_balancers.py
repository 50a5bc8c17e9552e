"""HAProxy and nginx in front of listeners, with PROXY headers of theirs, and nginx behind a shared port."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of, free_port, need
from tests.net.test_sharing import everything, request
from tests.net.test_streams import allocated, binding, connect, hang_up, insecure, read_message
from turnsvr.app.application import Application
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address

HERE = {"trusted": "127.0.0.1"}
_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_HAS_MODULE = _STREAM.exists()


@contextlib.asynccontextmanager
async def running(*command: str, port: int) -> AsyncIterator[None]:
    """A program in the foreground, from the moment that it listens on a port."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    assert process.returncode is None, await process.stdout.read()
                    await asyncio.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


@contextlib.asynccontextmanager
async def haproxy(directory: Path, header: str, server: Address, bind: str = "") -> AsyncIterator[Address]:
    """A balancer in front of the server. header: how it tells the client; bind: more words for its own listener."""
    port = free_port()
    file = directory / "haproxy.cfg"
    file.write_text(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen turn
    bind 127.0.0.1:{port} {bind}
    server turnsvr {server} {header} check inter 200ms
""")
    async with running(need("haproxy"), "-db", "-f", str(file), port=port):
        yield Address("127.0.0.1", port)


def nginx_file(directory: Path, text: str) -> Path:
    file = directory / "nginx.conf"
    file.write_text(f"""
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
{text}
""")
    return file


@contextlib.asynccontextmanager
async def nginx_stream(directory: Path, server: Address) -> AsyncIterator[Address]:
    port = free_port()
    load = f"load_module {_STREAM};" if _HAS_MODULE else ""
    text = f"stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {server}; proxy_protocol on; }} }}"
    file = nginx_file(directory, text)
    file.write_text(load + file.read_text())
    async with running(need("nginx"), "-e", "stderr", "-p", str(directory), "-c", str(file), port=port):
        yield Address("127.0.0.1", port)


@contextlib.asynccontextmanager
async def in_front(kind: str, directory: Path, application: Application, listener: str) -> AsyncIterator[Address]:
    server = address_of(application, listener)
    if kind == "nginx":
        async with nginx_stream(directory, server) as address:
            yield address
    else:
        async with haproxy(directory, kind, server) as address:
            yield address


@pytest.mark.parametrize("kind", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn", "nginx"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_session_through_a_balancer(serve: Serve, tmp_path: Path, kind: str, tls: bool) -> None:
    application = await serve(proxy=HERE)
    async with in_front(kind, tmp_path, application, "tls" if tls else "tcp") as address:
        streams = await connect(address, insecure() if tls else None)
        streams[1].write(binding())
        mine = streams[1].get_extra_info("sockname")
        assert (await read_message(streams[0])).get(a.XOR_MAPPED_ADDRESS) == mine
        client = await allocated(address, insecure() if tls else None)
        session = next(application.server.allocations())
        assert session.five_tuple.client == client.mapped
        assert (session.username, PASSWORD) == (USER, PASSWORD)
        await client.close()
        await hang_up(streams)
    assert dict(application.rooms.streams.header_refusals) == {}


async def test_checks_of_haproxy_are_no_refusals(serve: Serve, tmp_path: Path) -> None:
    """LOCAL of version 2, every 200 ms."""
    application = await serve(proxy=HERE)
    async with in_front("send-proxy-v2", tmp_path, application, "tcp"):
        await asyncio.sleep(1)
    assert dict(application.rooms.streams.header_refusals) == {}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_nginx_behind_a_shared_port_is_told_the_client(serve: Serve, tmp_path: Path, tls: bool) -> None:
    port = free_port()
    text = f"""http {{ access_log off; server {{
        listen 127.0.0.1:{port} proxy_protocol;
        location / {{ return 200 $proxy_protocol_addr:$proxy_protocol_port; }}
    }} }}"""
    file = nginx_file(tmp_path, text)
    async with running(need("nginx"), "-e", "stderr", "-p", str(tmp_path), "-c", str(file), port=port):
        application = await serve(share=f"proxy+tcp://127.0.0.1:{port}")
        streams = await connect(address_of(application, "tls" if tls else "tcp"), insecure() if tls else None)
        mine = streams[1].get_extra_info("sockname")
        streams[1].write(request("/"))
        answer = await everything(streams[0])
        assert answer.endswith(f"{mine[0]}:{mine[1]}".encode()), answer
        await hang_up(streams)


async def test_http2_to_nginx_behind_a_shared_port(serve: Serve, tmp_path: Path) -> None:
    """With the header in front of HTTP/2 without TLS."""
    port = free_port()
    text = f"""http {{ access_log off; server {{
        listen 127.0.0.1:{port} http2 proxy_protocol;
        location / {{ return 200 $server_protocol; }}
    }} }}"""
    file = nginx_file(tmp_path, text)
    async with running(need("nginx"), "-e", "stderr", "-p", str(tmp_path), "-c", str(file), port=port):
        application = await serve(share={"http": f"proxy+tcp://127.0.0.1:{port}", "http2": True})
        curl = await asyncio.create_subprocess_exec(
            need("curl"), "-sk", "--http2", f"https://{address_of(application, 'tls')}/",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        answer, _ = await asyncio.wait_for(curl.communicate(), PATIENCE)
        assert answer == b"HTTP/2.0"


async def test_haproxy_tells_names_apart_from_ours(serve: Serve, tmp_path: Path) -> None:
    """A balancer that opens TLS itself, and passes plain TURN on with the header."""
    application = await serve(proxy=HERE)
    files = application.settings.tls
    assert files is not None
    pem = tmp_path / "both.pem"
    pem.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    async with haproxy(tmp_path, "send-proxy-v2-ssl", address_of(application, "tcp"), f"ssl crt {pem}") as front:
        streams = await connect(front, insecure(maximum=ssl.TLSVersion.TLSv1_3))
        streams[1].write(binding())
        assert (await read_message(streams[0])).get(a.XOR_MAPPED_ADDRESS) == streams[1].get_extra_info("sockname")
        await hang_up(streams)
