"""SIGTERM ends `turnsvr run` within five seconds, whatever clients and sources of credentials are about."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, ServerProcess, free_port
from tests.net.test_handshakes import hello
from tests.net.test_streams import insecure
from tests.net.test_tenants import USERS, Caller
from turnsvr.app.lastresort import END_SECONDS
from turnsvr.net.tls import TlsFiles
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.message import Method

Start = Callable[..., ServerProcess]

WITHIN = 5.0
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """What a test holds open until its server has ended."""
    with ExitStack() as held:
        yield held


def settings(port: int, web: int, tls: TlsFiles, kind: str, hook: int, spool: Path) -> str:
    """hook: a port where nobody answers; users are looked up there, and what sessions relayed is reported."""
    return f"""
realm: example.org
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}]
tls: {{certificate: {tls.certificate}, key: {tls.key}}}
relay: {{addresses: [127.0.0.1]}}
peers: {{allow: [127.0.0.1]}}
credentials:
  users: {{{USER}: {PASSWORD}}}
  hook: {{url: "http://127.0.0.1:{hook}/", secret: {secrets.token_hex(16)}, timeout: 30s}}
usage: {{url: "http://127.0.0.1:{hook}/", secret: {secrets.token_hex(16)}, timeout: 30s, spool: {spool}}}
pump: {{kind: {kind}}}
web:
  listen: [http://127.0.0.1:{web}]
"""


def busy() -> float:
    """How much longer everything takes here, since others want the cores as well."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def odd_connections(held: ExitStack, port: int, web: int, admin: Path) -> None:
    """Connections that stopped in the middle of something."""

    def hold(address: tuple[str, int], said: bytes = b"") -> socket.socket:
        connected = held.enter_context(socket.create_connection(address, PATIENCE))
        connected.sendall(said)
        return connected

    turn = ("127.0.0.1", port)
    for said in (b"", b"\x00", b"\x00\x01\x00\x08\x21\x12", b"\x16", hello()[:60], hello(), b"GET / HTTP/1.1\r\n\r\n"):
        hold(turn, said)
    for said in (b"", b"\x00\x01", b"GET /"):
        sealed = held.enter_context(insecure().wrap_socket(hold(turn)))
        sealed.sendall(said)
    for said in (b"", b"GET /healthz HT", b"POST /ice HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"):
        hold(("127.0.0.1", web), said)
        with_admin = held.enter_context(socket.socket(socket.AF_UNIX))
        with_admin.connect(str(admin))
        with_admin.sendall(said)
    for path in (b"/signalling", b"/socket.io/?EIO=4&transport=websocket"):
        opened = hold(("127.0.0.1", web), b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + UPGRADE)
        assert opened.recv(100).startswith(b"HTTP/1.1 101 ")
        opened.sendall(b"\x81\xfe\x01")  # a frame of which more is to come
    long_poll(held, web)
    answered = hold(("127.0.0.1", web), b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answered.recv(100).startswith(b"HTTP/1.1 ")


def long_poll(held: ExitStack, web: int) -> None:
    """A session of Socket.IO that waits for what it is told next."""
    path = f"http://127.0.0.1:{web}/socket.io/?EIO=4&transport=polling"
    sid = json.loads(httpx.get(path, trust_env=False).text[1:])["sid"]
    httpx.post(f"{path}&sid={sid}", content="40", trust_env=False)
    waits = held.enter_context(socket.create_connection(("127.0.0.1", web), PATIENCE))
    for _ in range(2):  # the first is answered with what it missed
        waits.sendall(f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def slow_reader(held: ExitStack, server: Address, tls: ssl.SSLContext | None) -> None:
    """A client that reads nothing of what its peer sends."""
    client = held.enter_context(Caller(server, 0, USER, tls))
    relayed = client.allocate()
    peer = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.bind(("127.0.0.1", 0))
    client.permit(Address(*peer.getsockname()))
    for _ in range(3000):
        peer.sendto(bytes(1400), relayed)


def waiting_requests(held: ExitStack, server: Address) -> None:
    """Requests of users whom only the hook knows, which never answers."""
    for _ in range(3):
        client = held.enter_context(Caller(server, 0, "stranger"))
        client.challenged()
        client.socket.sendall(client.signed(Method.ALLOCATE, lambda message: message.add(a.REQUESTED_TRANSPORT, 17)))


@pytest.mark.parametrize("kind", ["auto", "portable"])
@pytest.mark.parametrize("drains", [False, True], ids=["serving", "draining"])
def test_sigterm_with_everything_half_done(
    server_process: Start,
    certificate: TlsFiles,
    held: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    drains: bool,
) -> None:
    monkeypatch.setitem(USERS, USER, PASSWORD)
    monkeypatch.setitem(USERS, "stranger", "danger")
    hook = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    port, web = free_port(), free_port()
    server = server_process(settings(port, web, certificate, kind, hook.getsockname()[1], tmp_path))
    address = Address("127.0.0.1", port)
    odd_connections(held, port, web, next(server.file.parent.rglob("*.sock")))
    slow_reader(held, address, None)
    slow_reader(held, address, insecure())
    waiting_requests(held, address)
    before = Caller(address, (again := free_port()), USER)
    before.allocate()
    before.reset()
    held.enter_context(Caller(address, again, USER)).allocate()
    if drains:
        server.signal(signal.SIGUSR1)
        server.wait_logged("draining")
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert time.monotonic() - began < WITHIN * busy(), server.log[-3000:]
    assert " stopped" in server.log
    assert not re.search("Traceback|Exception|Warning", server.log), server.log[-3000:]


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "mysql"])
def test_sigterm_while_a_database_hangs(
    server_process: Start, held: ExitStack, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """It takes connections and says nothing on them, for as long as there are requests that wait for it."""
    pytest.importorskip({"redis": "redis", "postgresql": "asyncpg", "mysql": "aiomysql"}[scheme])
    monkeypatch.setitem(USERS, "stranger", "danger")
    silent = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = free_port()
    server = server_process(f"""
realm: example.org
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}]
relay: {{addresses: [127.0.0.1]}}
credentials:
  users: {{{USER}: {PASSWORD}}}
  store: {{url: "{scheme}://turn@127.0.0.1:{silent.getsockname()[1]}/0", timeout: 0.5}}
status: {{redis: "redis://127.0.0.1:{silent.getsockname()[1]}/0"}}
""")
    waiting_requests(held, Address("127.0.0.1", port))
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert time.monotonic() - began < WITHIN * busy(), server.log[-3000:]
    assert " stopped" in server.log
    assert not re.search("Traceback|Exception|Warning", server.log), server.log[-3000:]


def test_waits_for_what_hangs_do_not_add_up(
    server_process: Start, certificate: TlsFiles, held: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Redis and the usage service get 2 s each, HTTP 0.7 s: one after another, the last resort would come."""
    pytest.importorskip("redis")
    monkeypatch.setitem(USERS, USER, PASSWORD)
    silent = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    port, web, unheard = free_port(), free_port(), silent.getsockname()[1]
    text = settings(port, web, certificate, "portable", unheard, tmp_path)
    server = server_process(text + f'status: {{redis: "redis://127.0.0.1:{unheard}/0"}}\n')
    held.enter_context(Caller(Address("127.0.0.1", port), 0, USER)).allocate()
    half = held.enter_context(socket.create_connection(("127.0.0.1", web), PATIENCE))
    half.sendall(b"POST /ice HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
    server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert " stopped" in server.log, server.log[-3000:]
    assert "usage records wait for the next start" in server.log
    assert "ended without waiting" not in server.log


STUBBORN = """
import asyncio, sys, time
from turnsvr.app.lastresort import LastResort

async def serve(last_resort):
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, time.sleep, 60)
    await asyncio.sleep(0.1)
    last_resort.begin()
    last_resort.status = int(sys.argv[1])

last_resort = LastResort(0.5)
asyncio.run(serve(last_resort))
"""


@pytest.mark.parametrize("status", [0, 1])
def test_a_thread_that_hangs_keeps_nobody(status: int) -> None:
    """As one that asks a name server which does not answer."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN, str(status)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == status
    assert time.monotonic() - began < PATIENCE
    assert "ended without waiting any longer" in done.stdout + done.stderr


def test_the_last_resort_comes_within_five_seconds() -> None:
    assert END_SECONDS < WITHIN
