"""Strangers who hold connections: a server process with few open files, real sockets, calls that go on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, ServerProcess, free_port
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink, StreamLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address

FILES = 1_000
"""Open files that the server is allowed."""
HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
TLS_HELLO = b"\x16\x03\x01\x02\x00"
HELD: dict[str, bytes] = {
    "silent": b"",
    "half a head": HALF_A_HEAD,
    "one request and half of the next": GET + HALF_A_HEAD,
    "keep-alive": GET,
    "half a body": b"POST /v1/get-ice-server-config HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{",
    "half a chunked body": b"PUT /_turn/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    "a body that nobody wants": b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n",
    "answers that nobody reads": b"GET /static/main.js HTTP/1.1\r\nHost: a\r\n\r\n" * 2,
    "long polls": b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n",
    "WebSockets": (
        b"GET /signalling HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
    "WebSockets of Socket.IO": (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
}
"""What a stranger says on each of his connections before he falls silent."""


class Ports:
    """Where a server listens."""

    def __init__(self) -> None:
        self.turn, self.web, self.secure, self.admin = (free_port() for _ in range(4))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles) -> Iterator[tuple[ServerProcess, Ports]]:
    """One server for every test whose connections end with it."""
    ports = Ports()
    directory = tmp_path_factory.mktemp("floods")
    with ServerProcess(settings(ports, certificate), directory, command=limited()) as process:
        yield process, ports


@pytest.fixture
def ports(shared: tuple[ServerProcess, Ports]) -> Iterator[Ports]:
    """Those of the shared server, in whose log a test leaves no trace-back."""
    server, ports = shared
    before = len(server.log)
    yield ports
    assert server.process.poll() is None
    assert "Traceback" not in server.log[before:]


def settings(ports: Ports, certificate: TlsFiles) -> str:
    return f"""
realm: example.org
listen: [udp://127.0.0.1:{ports.turn}, tcp://127.0.0.1:{ports.turn}]
relay: {{addresses: [127.0.0.1]}}
tls: {{certificate: {certificate.certificate}, key: {certificate.key}}}
credentials: {{users: {{{USER}: {PASSWORD}}}}}
limits: {{allocations_per_user: 1000}}
web:
  listen: ["http://127.0.0.1:{ports.web}", "https://127.0.0.1:{ports.secure}"]
  requests_per_address: 0
  metrics: 127.0.0.1
admin: {{listen: "http://127.0.0.1:{ports.admin}", token: "open sesame, open sesame"}}
"""


def limited() -> tuple[str, ...]:
    return ("/bin/sh", "-c", f'ulimit -n {FILES}; exec "$0" -m turnsvr run "$@"', sys.executable)


@asynccontextmanager
async def held(count: int, port: int, said: bytes, source: Callable[[int], str]) -> AsyncIterator[None]:
    """So many connections that say this and then nothing, for as long as the block lasts."""
    opened: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for number in range(count):
            each = socket.socket()
            opened.append(each)
            each.setblocking(False)
            each.bind((source(number), 0))
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(each, ("127.0.0.1", port))
            with contextlib.suppress(OSError):
                each.send(said)
        await asyncio.sleep(0.3)
        yield
    finally:
        for each in opened:
            each.close()


def one(number: int) -> str:
    """The address of a stranger who has one, which is also that of whoever probes the server's health."""
    return "127.0.0.1"


def many(number: int) -> str:
    """Addresses of a stranger who has many."""
    return f"127.{1 + number // 250 % 200}.{number // 50_000}.{1 + number % 250}"


async def off_loop(call: Callable[..., object], *arguments: object) -> None:
    await asyncio.to_thread(call, *arguments)


async def healthy(ports: Ports) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE) as client:
        for path in ("healthz", "readyz"):
            assert (await client.get(f"http://127.0.0.1:{ports.web}/{path}")).status_code == 200
        assert (await client.get(f"https://127.0.0.1:{ports.secure}/healthz")).status_code == 200


async def relays(port: int, count: int = 10) -> None:
    """Clients over UDP and TCP get their allocations."""
    address = Address("127.0.0.1", port)
    clients = []
    try:
        for number in range(count):
            link = await (StreamLink.open(address) if number % 2 else DatagramLink.open(address))
            clients.append(TurnClient(link, Login(USER, PASSWORD)))
            await clients[-1].allocate()
    finally:
        for client in clients:
            await client.close()


@pytest.mark.parametrize("source", [one, many])
@pytest.mark.parametrize("what", HELD)
async def test_held_connections_take_neither_health_nor_relays(
    ports: Ports, what: str, source: Callable[[int], str]
) -> None:
    async with held(FILES + 200, ports.web, HELD[what], source):
        await healthy(ports)
        await relays(ports.turn)
        await healthy(ports)


async def test_held_tls_handshakes_take_neither(ports: Ports) -> None:
    async with held(FILES + 200, ports.secure, TLS_HELLO, many):
        await healthy(ports)
        await relays(ports.turn)


async def test_the_admin_listener_takes_neither(ports: Ports) -> None:
    async with held(FILES + 200, ports.admin, b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n", many):
        await healthy(ports)
        await relays(ports.turn)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            url = f"http://127.0.0.1:{ports.admin}/status"
            answer = await client.get(url, headers={"Authorization": "Bearer open sesame, open sesame"})
        assert answer.status_code == 200
        shares = answer.json()["open_files"]
        assert shares.pop("limit") == FILES >= sum(shares.values())


async def test_streams_of_turn_take_neither(ports: Ports) -> None:
    async with held(FILES + 200, ports.turn, b"", many):
        await healthy(ports)
        clients = [TurnClient(await DatagramLink.open(Address("127.0.0.1", ports.turn)), Login(USER, PASSWORD))]
        for client in clients:
            await client.allocate()
            await client.close()


async def test_relays_take_no_share_of_http(tmp_path: Path, certificate: TlsFiles) -> None:
    """A user allocates until the server has no more, which it says with 508; pages and streams go on."""
    ports = Ports()
    with ServerProcess(settings(ports, certificate), tmp_path, command=limited()) as server:
        await allocate_all(ports)
        assert "Traceback" not in server.log


async def allocate_all(ports: Ports) -> None:
    clients = []
    try:
        with contextlib.suppress(TransactionFailed):
            for _ in range(FILES):
                link = await DatagramLink.open(Address("127.0.0.1", ports.turn))
                clients.append(TurnClient(link, Login(USER, PASSWORD)))
                await clients[-1].allocate()
        assert 100 < len(clients) < FILES
        async with held(100, ports.web, b"", many):
            await healthy(ports)
        _, writer = await asyncio.open_connection("127.0.0.1", ports.turn)
        writer.close()
        await writer.wait_closed()
    finally:
        for client in clients:
            client.relayed = ()
            await client.close()
