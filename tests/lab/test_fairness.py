"""One source that sends all that it can makes nobody else wait, over any transport, with either pump."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.coturn import PASSWORD, USER
from tests.lab.conftest import OURS, turnsvr
from tests.lab.netlab import Lab, Node, laboratory, require
from turnsvr.client.credentials import Login, challenged
from turnsvr.client.link import new_request, open_link
from turnsvr.client.transaction import Timers, TransactionFailed, TransactionTimeout
from turnsvr.client.turn import TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Class, Message, Method

CLIENTS = 40
LONGEST = 0.05
"""Seconds to a challenge, and to an allocation, at the median."""
VISITS = 3
"""The machine may be busy with other tests, as the flood is not: one visit of these is to find no wait."""
PATIENCE = Timers(rto=5.0, rc=1, rm=1)
"""No second attempt: what is lost is lost."""

REFRESH = Message(Method.REFRESH, Class.REQUEST, bytes(12)).encode()
MESSAGES = {
    "refresh": REFRESH,
    "malformed": REFRESH[:2] + b"\x00\x04" + REFRESH[4:] + b"\x00\x06\xff\xff",
    "unknown method": b"\x0a\xbc" + REFRESH[2:],
    "wrong method": b"\x01\x01" + REFRESH[2:],
    "oversize": REFRESH[:2] + b"\xea\x60" + REFRESH[4:] + b"\x00\x06\xea\x5c" + bytes(59_996),
}

FLOODER = """
import socket, ssl, sys
how, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
first, message = (bytes.fromhex(each) for each in sys.argv[4:])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if how.startswith("udp") else socket.SOCK_STREAM)
sock.connect((host, port))
if how == "tls":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sock = context.wrap_socket(sock)
if how == "udp trains":
    sock.setsockopt(17, 103, len(message))  # UDP_SEGMENT
much = message * max(1, {"udp": 0, "udp trains": 60}.get(how, 60000 // len(message)))
sock.sendall(first)
print("at it", flush=True)
while True:
    try:
        sock.sendall(much)
    except (BlockingIOError, ConnectionRefusedError):
        pass
"""
"""It begins with a request: a connection that begins with anything else is closed before it floods."""


HANDSHAKES = """
import socket, ssl, sys, time
host, port = sys.argv[1], int(sys.argv[2])
while True:
    try:
        socket.create_connection((host, port)).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.1)  # HTTP is served after TURN
out = ssl.MemoryBIO()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
except ssl.SSLWantReadError:
    pass
hello = out.read()
print("at it", flush=True)
while True:
    opened = [socket.create_connection((host, port)) for _ in range(60)]
    for part in (hello[:9], hello[9:]):
        for each in opened:
            try:
                each.sendall(part)
            except OSError:
                pass
    for each in opened:
        each.close()
"""
"""Handshakes that begin together, in a loop: each has the server sign, and none goes on."""


@dataclass(frozen=True)
class Site:
    """The server's host, an honest one, and one that floods."""

    lab: Lab
    honest: Node
    hostile: Node
    kind: str

    @property
    def server(self) -> Address:
        return Address(self.lab.servers_v4[0], OURS.port)

    @contextmanager
    def flood(self, how: str, message: bytes) -> Iterator[None]:
        port = self.server.port if how != "tls" else 5349
        with self.hostilely(FLOODER, how, self.server.host, str(port), REFRESH.hex(), message.hex()):
            yield

    @contextmanager
    def hostilely(self, program: str, *arguments: str) -> Iterator[None]:
        words = [sys.executable, "-c", program, *arguments]
        process = subprocess.Popen(self.hostile.inside(*words), stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"at it\n"
            time.sleep(0.3)
            yield
            assert process.poll() is None, "the flood has ended"
        finally:
            process.kill()
            process.communicate()

    async def visit(self) -> tuple[list[float], list[float], int]:
        """Seconds that challenges took, that allocations took, and how many answers were lost."""
        challenges, allocations, lost = list[float](), list[float](), 0
        for _ in range(CLIENTS):
            client = TurnClient(await open_link(Transport.UDP, self.server), Login(USER, PASSWORD), timers=PATIENCE)
            try:
                began = time.monotonic()
                try:
                    await client.link.request(new_request(Method.ALLOCATE), timers=PATIENCE)
                except TransactionFailed as failure:
                    challenges.append(time.monotonic() - began)
                    client.session = challenged(Login(USER, PASSWORD), failure.response.message)
                began = time.monotonic()
                await client.allocate()
                allocations.append(time.monotonic() - began)
                await client.refresh(0)
            except TransactionTimeout:
                lost += 1
            finally:
                await client.close()
        return challenges, allocations, lost


_BY_ASYNCIO = "from turnsvr.relay.compiled import tls; tls.missing = lambda: 'so the test wants it'"
_APART = """
from types import SimpleNamespace
from turnsvr.relay.portable import group
group.secrets = SimpleNamespace(randbits=lambda bits: 0x9E3779B1)
"""
"""The two hosts have sockets of their own; of sixteen neighbours of a flood one has not (docs/security.md)."""


@pytest.fixture(
    scope="module",
    params=["compiled", "compiled, TLS by asyncio", "portable"],
    ids=lambda kind: kind.replace(", ", " "),
)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles
) -> Iterator[Site]:
    require()
    kind, _, by_asyncio = request.param.partition(", ")
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory())
        honest, _ = stack.enter_context(lab.host())
        hostile, _ = stack.enter_context(lab.host())
        settings = {
            "listen": [f"{transport}://{lab.servers_v4[0]}" for transport in ("udp", "tcp", "tls")],
            "tls": {"certificate": str(certificate.certificate), "key": str(certificate.key)},
            "pump": {"kind": kind},
            "web": {"listen": f"https://{lab.servers_v4[0]}:8443"},
        }
        first = _BY_ASYNCIO if by_asyncio else _APART
        directory: Path = tmp_path_factory.mktemp("fairness")
        stack.enter_context(turnsvr(lab.core, directory, settings, first=first))
        yield Site(lab, honest, hostile, kind)


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("how", ["tcp", "tls", "udp", "udp trains"])
def test_nobody_waits_for_a_flood(site: Site, how: str, message: str) -> None:
    if how == "udp trains" and message == "oversize":
        pytest.skip("larger than a packet")
    with site.flood(how, MESSAGES[message]):
        judge(site)


@pytest.mark.parametrize("port", [5349, 8443], ids=["tls", "https"])
def test_nobody_waits_for_handshakes(site: Site, port: int) -> None:
    with site.hostilely(HANDSHAKES, site.server.host, str(port)):
        judge(site)


def judge(site: Site) -> None:
    waits = []
    for _ in range(VISITS):
        challenges, allocations, lost = site.honest.run(site.visit)
        waits.append((middle(challenges), middle(allocations), lost))
        if lost == 0 and max(waits[-1]) < LONGEST:
            return
    pytest.fail(f"medians of challenges and allocations in seconds, and how many were lost: {waits}")


def middle(seconds: list[float]) -> float:
    return statistics.median(seconds) if seconds else math.inf
