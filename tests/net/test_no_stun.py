"""What is no STUN is cut off at once, in the open and inside TLS: nobody waits for the rest of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import PATIENCE, Serve, address_of
from tests.net.test_streams import Streams, binding, connect, hang_up, insecure, read_message, until, way
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.net.arrival import BAD_REQUEST

__all__ = ["serve", "way"]

OTHERS = {
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "SMTP": b"EHLO example.org\r\n",
    "ChannelData": b"\x40\x00\x00\x04abcd",
    "the beginning of long ChannelData": b"\x7f\xfe\xff\xff",
    "one letter": b"A",
    "IMAP": b"A001 LOGIN a b\r\n",
    "TLS 1.0 alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "STUN without the cookie": b"\x00\x01\x00\x00\x21\x12\xa4\x43",
    "STUN of an odd length": b"\x00\x01\x00\x03",
    "DNS over TCP": b"\x00\x1d\x12\x34\x01\x00\x00\x01",
}
HTTP = [
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"GET ",
    b"POST /api HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000),
    b"PROPFIND / HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


async def everything(streams: Streams) -> bytes:
    """What the server sends until it closes; a reset may come in the place of the end."""
    got = b""
    async with asyncio.timeout(PATIENCE / 2):  # idle connections are dropped later
        try:
            while data := await streams[0].read(65_536):
                got += data
        except OSError:
            pass
    return got


@pytest.mark.parametrize("spoken", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("step", [1, 1000], ids=["byte by byte", "whole"])
async def test_is_closed_without_a_word(serve: Serve, way: tuple[str, bool], spoken: bytes, step: int) -> None:
    listener, tls = way
    application = await serve()
    streams = await connect(address_of(application, listener), insecure() if tls else None)
    for at in range(0, len(spoken), step):
        streams[1].write(spoken[at : at + step])
        await asyncio.sleep(0.002 if step == 1 else 0)
    assert await everything(streams) == b""
    await hang_up(streams)
    await until(lambda: application.connections == 0)


@pytest.mark.parametrize("spoken", HTTP, ids=lambda spoken: spoken[:8].decode())
async def test_http_is_told_so(serve: Serve, way: tuple[str, bool], spoken: bytes) -> None:
    listener, tls = way
    application = await serve()
    streams = await connect(address_of(application, listener), insecure() if tls else None)
    streams[1].write(spoken)
    assert await everything(streams) == BAD_REQUEST
    await hang_up(streams)
    await until(lambda: application.connections == 0)


async def test_http_byte_by_byte_is_told_so(serve: Serve, way: tuple[str, bool]) -> None:
    """The decision falls with the first byte, and what follows does not cost the client the answer."""
    listener, tls = way
    application = await serve()
    streams = await connect(address_of(application, listener), insecure() if tls else None)
    for byte in HTTP[0]:
        streams[1].write(bytes((byte,)))
        await asyncio.sleep(0.002)
    assert await everything(streams) == BAD_REQUEST
    await hang_up(streams)
    await until(lambda: application.connections == 0)


async def test_tls_is_closed_where_nobody_has_a_certificate(serve: Serve) -> None:
    application = await serve(listen=["tcp://127.0.0.1:0"], tls=None)
    streams = await connect(address_of(application, "tcp"))
    streams[1].write(b"\x16")
    assert await everything(streams) == b""
    await hang_up(streams)
    await until(lambda: application.connections == 0)


async def test_stop_does_not_wait_for_who_was_told(serve: Serve) -> None:
    application = await serve()
    told = [await connect(address_of(application, "tcp")) for _ in range(5)]
    for _, writer in told:
        writer.write(HTTP[0])
    for reader, _ in told:
        assert await asyncio.wait_for(reader.readexactly(len(BAD_REQUEST)), PATIENCE) == BAD_REQUEST
    async with asyncio.timeout(0.8):
        await application.stop()
    for streams in told:
        await hang_up(streams)


async def test_whoever_holds_on_after_the_last_word_is_let_go_of(serve: Serve) -> None:
    application = await serve()
    streams = await connect(address_of(application, "tcp"))
    streams[1].write(HTTP[0])
    await asyncio.wait_for(streams[0].readexactly(len(BAD_REQUEST)), PATIENCE)
    await until(lambda: application.connections == 0)
    await hang_up(streams)


@pytest.mark.parametrize("count", [1, 13, 100, 2000])
async def test_much_at_first_is_read_whole(serve: Serve, way: tuple[str, bool], count: int) -> None:
    """More than is looked at, than a record of TLS has, in order."""
    listener, tls = way
    application = await serve()
    streams = await connect(address_of(application, listener), insecure() if tls else None)
    requests = [binding() for _ in range(count)]
    streams[1].write(b"".join(requests))
    for request in requests:
        assert (await read_message(streams[0])).transaction_id == request[8:20]
    await hang_up(streams)
