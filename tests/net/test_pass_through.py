"""Names whose TLS another server takes: byte for byte, from the client's first to the server's last."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.conftest import PATIENCE, Serve, accepting, address_of, free_port
from tests.net.test_clienthello import ENCRYPTED, GREASE, hello, in_records, made, server_name
from tests.net.test_proxied import CLIENT, HERE, version_2
from tests.net.test_sharing import backend, everything, request
from tests.net.test_streams import Streams, binding, connect, ends, hang_up, insecure, read_message, until
from turnsvr.app import firstrun
from turnsvr.app.application import Application
from turnsvr.net import hello as hello_room
from turnsvr.net.proxyheader import HeaderReader
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.message import Class

SHOP = "shop.example.org"


@contextlib.asynccontextmanager
async def other_server(directory: Path) -> AsyncIterator[tuple[int, bytes]]:
    """Another TLS server, which says good day: its port and its certificate."""
    files: TlsFiles = firstrun.write_self_signed(directory, ["192.0.2.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readline()
            writer.write(b"good day" * 100_000)
            await writer.drain()

    async with accepting(serve, tls=context) as port:
        yield port, ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


async def connect_as(application: Application, name: str) -> Streams:
    address = address_of(application, "tls")
    return await asyncio.wait_for(asyncio.open_connection(*address, ssl=insecure(), server_hostname=name), PATIENCE)


def certificate_of(streams: Streams) -> bytes:
    found = streams[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert isinstance(found, bytes)
    return found


async def test_a_name_is_another_servers_and_all_others_are_ours(
    serve: Serve, tmp_path: Path, certificate: TlsFiles
) -> None:
    async with other_server(tmp_path) as (port, theirs):
        application = await serve(share={"pass_through": {SHOP: f"tcp://127.0.0.1:{port}"}})
        shop = await connect_as(application, SHOP.upper())
        assert certificate_of(shop) == theirs
        shop[1].write(b"good day?\n")
        assert len(await asyncio.wait_for(shop[0].readexactly(800_000), PATIENCE)) == 800_000
        turn = await connect_as(application, "turn.example.org")
        assert certificate_of(turn) == ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())
        turn[1].write(binding())
        assert (await read_message(turn[0])).message_class is Class.SUCCESS
        for each in (shop, turn):
            await hang_up(each)
        await until(lambda: application.connections == len(application.rooms.streams.splices) == 0)


HELLOS = {
    "OpenSSL's": hello(SHOP, ["h2"]),
    "in records of 3 bytes": in_records(hello(SHOP), 3),
    "with GREASE and ECH": made(GREASE, ENCRYPTED, server_name(SHOP.encode()), GREASE),
    "large": made((0x2B2B, bytes(15_000)), server_name(SHOP.encode())),
}


@pytest.mark.parametrize("said", HELLOS.values(), ids=HELLOS)
@pytest.mark.parametrize("size", [1, 100, 100_000], ids=["byte by byte", "in segments", "whole"])
async def test_every_byte_arrives(serve: Serve, said: bytes, size: int) -> None:
    if size == 1 and len(said) > 5_000:
        size = 400
    async with backend(b"ok", always=True) as (port, told):
        application = await serve(share={"pass_through": {SHOP: f"tcp://127.0.0.1:{port}"}})
        streams = await connect(address_of(application, "tcp"))
        for at in range(0, len(said), size):
            streams[1].write(said[at : at + size])
            await asyncio.sleep(0.001 if size < 1000 else 0)
        assert await asyncio.wait_for(streams[0].readexactly(2), PATIENCE) == b"ok"
        streams[1].write(b"what follows")
        await until(lambda: told == [said + b"what follows"])
        await hang_up(streams)


@pytest.mark.parametrize(
    "said",
    [
        hello(),
        hello("other.example.org"),
        made((0x2B2B, bytes(17_000)), server_name(SHOP.encode())),
        b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00",
        b"\x16GET / HTTP/1.1\r\n",
    ],
    ids=["without a name", "another name", "too large", "no ClientHello", "no TLS"],
)
async def test_everything_else_is_ours_to_judge(serve: Serve, said: bytes) -> None:
    async with backend(b"ok", always=True) as (port, told):
        application = await serve(share={"pass_through": {SHOP: f"tcp://127.0.0.1:{port}"}})
        streams = await connect(address_of(application, "tls"))
        streams[1].write(said)
        with contextlib.suppress(ConnectionError):
            assert (await asyncio.wait_for(streams[0].read(1), PATIENCE)) in (b"\x16", b"\x15", b"")
        assert told == []
        await hang_up(streams)
        await until(lambda: application.connections == 0)


async def test_a_hello_that_nobody_finishes_has_an_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for without a look at the clock meanwhile, and who closes half-way is gone at once."""
    monkeypatch.setattr(hello_room, "HELLO_SECONDS", 0.3)
    monkeypatch.setattr("turnsvr.net.streams._HANDSHAKE_TIMEOUT", 0.3)
    application = await serve(share={"pass_through": {SHOP: "tcp://127.0.0.1:1"}})
    slow = await connect(address_of(application, "tls"))
    slow[1].write(hello(SHOP)[:40])
    assert (await asyncio.wait_for(slow[0].read(), PATIENCE))[:1] in (b"", b"\x15")
    await hang_up(slow)
    monkeypatch.setattr(hello_room, "HELLO_SECONDS", 100)
    gone = await connect(address_of(application, "tls"))
    gone[1].write(hello(SHOP)[:40])
    gone[1].write_eof()
    assert (await asyncio.wait_for(gone[0].read(), PATIENCE))[:1] in (b"", b"\x15")
    await hang_up(gone)
    await until(lambda: application.connections == 0)


async def test_names_below_a_name(serve: Serve) -> None:
    async with backend(b"ok", always=True) as (port, told):
        names = {"*.example.org": f"tcp://127.0.0.1:{port}", "turn.example.org": "tcp://127.0.0.1:1"}
        application = await serve(share={"pass_through": names})
        for name, is_theirs in (("a.b.example.org", True), ("example.org", False), ("turn.example.org", False)):
            streams = await connect(address_of(application, "tls"))
            streams[1].write(hello(name))
            got = await asyncio.wait_for(streams[0].read(2), PATIENCE)
            assert (got == b"ok") is is_theirs
            await hang_up(streams)
        assert len(told) == 1


async def test_it_is_told_the_client(serve: Serve) -> None:
    async with backend(b"ok", always=True) as (port, told):
        share = {"pass_through": {SHOP: f"proxy+tcp://127.0.0.1:{port}"}}
        application = await serve(share=share, proxy=HERE)
        streams = await connect(address_of(application, "tls"))
        streams[1].write(version_2(CLIENT) + hello(SHOP))
        await until(lambda: bool(told) and len(told[0]) > 100)
        header = HeaderReader()
        assert told[0][header.feed(told[0]) :][:3] == b"\x16\x03\x01"
        assert header.client == CLIENT
        await hang_up(streams)


async def test_one_that_is_down_says_nothing(serve: Serve) -> None:
    application = await serve(share={"pass_through": {SHOP: f"tcp://127.0.0.1:{free_port()}"}})
    with capture_logs() as logs:
        streams = await connect(address_of(application, "tls"))
        streams[1].write(hello(SHOP))
        assert await ends(streams[0])
        await hang_up(streams)
    assert [entry["event"] for entry in logs].count("another server cannot be reached") == 1


async def test_without_a_certificate_of_ours(serve: Serve) -> None:
    """A port for plain TURN that passes TLS on."""
    async with backend(b"ok", always=True) as (port, _):
        application = await serve(
            listen=["tcp://127.0.0.1:0"], tls=None, share={"pass_through": {SHOP: f"tcp://127.0.0.1:{port}"}}
        )
        for name, wanted in ((SHOP, b"ok"), ("x.example", b"")):
            streams = await connect(address_of(application, "tcp"))
            streams[1].write(hello(name))
            assert await asyncio.wait_for(streams[0].read(2), PATIENCE) == wanted
            await hang_up(streams)


async def test_http_is_served_beside_it(serve: Serve) -> None:
    share = {"http": "web", "pass_through": {SHOP: "tcp://127.0.0.1:1"}}
    application = await serve(share=share, web={"listen": "http://127.0.0.1:0"})
    streams = await connect_as(application, "turn.example.org")
    streams[1].write(request())
    assert (await everything(streams[0])).startswith(b"HTTP/1.1 200 OK")
    await hang_up(streams)
