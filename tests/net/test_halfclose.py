"""One direction of a connection ends, and all of it where the other end is gone or TLS knows no half."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import cast

from tests.conftest import PATIENCE
from tests.net.test_streams import insecure
from turnsvr.net.halfclose import end_writing
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.sockets import reset_when_closed


class Lost(asyncio.Protocol):
    """Tells when its connection is there, and when it is gone."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[asyncio.Transport] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.set_result(cast(asyncio.Transport, transport))

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


async def accepted(listener: socket.socket, tls: ssl.SSLContext | None = None) -> tuple[Lost, asyncio.Transport]:
    connected, _ = await asyncio.get_running_loop().sock_accept(listener)
    served = Lost()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: served, connected, ssl=tls)
    return served, await served.made


async def test_what_was_written_comes_before_the_end_and_the_other_way_stays_open() -> None:
    async with asyncio.timeout(PATIENCE):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            served, transport = await accepted(listener)
            transport.write(b"last words")
            end_writing(transport)
            end_writing(transport)
            assert await reader.read() == b"last words"
            assert not served.lost.done()
            writer.write(b"and mine")
            await writer.drain()
            transport.abort()
            await served.lost
            writer.transport.abort()


async def test_a_connection_whose_reset_the_loop_has_not_heard_of_ends_without_a_word() -> None:
    async with asyncio.timeout(PATIENCE):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with socket.create_connection(listener.getsockname()) as client:
                served, transport = await accepted(listener)
                reset_when_closed(client)
            end_writing(transport)
            await served.lost


async def test_over_tls_the_connection_ends(certificate: TlsFiles) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    async with asyncio.timeout(PATIENCE):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = asyncio.create_task(asyncio.open_connection(*listener.getsockname(), ssl=insecure()))
            served, transport = await accepted(listener, context)
            reader, writer = await client
            transport.write(b"last words")
            end_writing(transport)
            assert await reader.read() == b"last words"
            writer.transport.abort()
            await served.lost
