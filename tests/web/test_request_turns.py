"""HTTP requests begin in turns: a few in each turn of the loop, one source after the other, none of who has left."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.conftest import PATIENCE
from tests.net.test_handshakes import hello
from tests.net.test_streams import hang_up
from turnsvr.config.ranges import AddressRange
from turnsvr.net.tls import TlsFiles
from turnsvr.web.connections import HttpConnections, HttpLimits
from turnsvr.web.middleware import AsgiReceive, AsgiScope, AsgiSend, answer
from turnsvr.web.requestturns import AT_ONCE
from turnsvr.web.serving import HttpServers

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MANY = 30
HEALTH = (b"GET /healthz", b"HEAD /healthz", b"GET /readyz")


class Busy:
    """An application that notes in which turn of the loop each request begins, and whose."""

    def __init__(self) -> None:
        self.began: list[tuple[int, str]] = []
        """Turn and client of each."""
        self._turn = 0

    async def count(self) -> None:
        while True:
            self._turn += 1
            await asyncio.sleep(0)

    async def serve(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        self.began.append((self._turn, scope["client"][0]))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await answer(send, 200, b"")


@asynccontextmanager
async def served(
    application: Busy, connections: int = 1_000, favoured: str = "::1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, int]]:
    limits = HttpLimits(connections, connections, favoured=(AddressRange.parse(favoured),))
    table = HttpConnections(limits, asyncio.get_running_loop())
    servers = HttpServers()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    counting = asyncio.create_task(application.count())
    await servers.start([listener], application.serve, table, message_size=1_000, tls=tls)
    try:
        yield listener.getsockname()
    finally:
        counting.cancel()
        await servers.stop()


Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(stack: AsyncExitStack, to: tuple[str, int], source: str, says: bytes) -> Connected:
    reader, writer = await asyncio.open_connection(*to, local_addr=(source, 0))
    stack.push_async_callback(hang_up, (reader, writer))
    writer.write(says)
    return reader, writer


async def until_read() -> None:
    """The server, which is on this loop, has taken MANY connections, and read what came along with them."""
    for _ in range(2 * MANY):
        await asyncio.sleep(0)


@pytest.mark.parametrize("says", [GET, UPGRADE], ids=["request", "websocket"])
async def test_a_few_begin_in_one_turn_of_the_loop_and_sources_take_turns(says: bytes) -> None:
    application = Busy()
    async with asyncio.timeout(PATIENCE), served(application) as to, AsyncExitStack() as stack:
        begun = [await connect(stack, to, "127.0.0.2", says[:-2]) for _ in range(MANY)]
        begun.append(await connect(stack, to, "127.0.0.3", says[:-2]))
        for _, writer in begun:
            writer.write(says[-2:])
        for reader, _ in begun:
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
    assert len(application.began) == MANY + 1
    assert max(Counter(turn for turn, _ in application.began).values()) <= AT_ONCE
    assert [host for _, host in application.began].index("127.0.0.3") < MANY - 1


@pytest.mark.parametrize("asks", HEALTH, ids=bytes.decode)
@pytest.mark.parametrize("says", [GET, UPGRADE], ids=["request", "websocket"])
async def test_a_probe_waits_for_nobody(says: bytes, asks: bytes) -> None:
    """However many addresses have a request waiting, and though all of them asked before."""
    probe = GET.replace(b"GET /", asks)
    application = Busy()
    async with asyncio.timeout(PATIENCE), served(application) as to, AsyncExitStack() as stack:
        begun = [await connect(stack, to, f"127.0.1.{number + 1}", says[:-2]) for number in range(MANY)]
        begun.append(await connect(stack, to, "127.0.2.1", probe[:-2]))
        await until_read()
        for _, writer in begun:
            writer.write(says[-2:])
        for reader, _ in begun:
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
    assert [host for _, host in application.began].index("127.0.2.1") <= 2 * AT_ONCE


async def test_a_favoured_address_waits_for_no_handshakes_of_others(certificate: TlsFiles) -> None:
    """As loopback is: a probe that comes over TLS says what it is after the handshake alone."""
    tls, says, answered = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), hello(), list[str]()
    tls.load_cert_chain(certificate.certificate, certificate.key)

    async def is_answered(host: str, reader: asyncio.StreamReader) -> None:
        assert await reader.read(1) == b"\x16"
        answered.append(host)

    async with (
        asyncio.timeout(PATIENCE),
        served(Busy(), favoured="127.0.2.1", tls=tls) as to,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as waiting,
    ):
        hosts = [*(f"127.0.1.{number + 1}" for number in range(MANY)), "127.0.2.1"]
        begun = [(host, await connect(stack, to, host, says[:-1])) for host in hosts]
        await until_read()
        for host, (reader, writer) in begun:
            waiting.create_task(is_answered(host, reader))
            writer.write(says[-1:])
    assert answered.index("127.0.2.1") < MANY // 3


async def test_probes_from_many_addresses_leave_others_half_of_the_turns() -> None:
    probe = GET.replace(b"GET /", b"GET /healthz")
    application = Busy()
    async with asyncio.timeout(PATIENCE), served(application) as to, AsyncExitStack() as stack:
        begun = [await connect(stack, to, f"127.0.1.{number + 1}", probe[:-2]) for number in range(MANY)]
        begun.append(await connect(stack, to, "127.0.2.1", GET[:-2]))
        await until_read()
        for _, writer in begun:
            writer.write(GET[-2:])
        for reader, _ in begun:
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
    assert [host for _, host in application.began].index("127.0.2.1") <= 2 * AT_ONCE


@pytest.mark.parametrize("says", [GET, UPGRADE], ids=["request", "websocket"])
async def test_who_waits_for_a_turn_makes_room_and_never_reaches_the_application(
    says: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    application = Busy()
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(PATIENCE), served(application, connections=2) as to, AsyncExitStack() as stack:
            for number in range(MANY):
                await connect(stack, to, f"127.0.1.{number + 1}", says)
            reader, _ = await connect(stack, to, "127.0.2.1", says)
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
    assert application.began[-1][1] == "127.0.2.1"
    assert not caplog.records
