"""A server, the processes that succeed it, and clients that count what arrives through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, TypeVar

from tests.conftest import PASSWORD, PATIENCE, USER, ServerProcess, free_port
from tests.processes import children, state, wait_for
from turnsvr.admin.client import AdminClient
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link, tls_context
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address, Family, Transport

SECRET = "a secret that is shared with those who name users for a time"
LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}


T = TypeVar("T")


async def off_loop(call: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(call, *arguments)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.05)


_SILENCE = 3.0
"""Seconds without a packet after which the rest is lost."""
_ROOM = 4 * 1024 * 1024
"""Bytes that a receiver asks for: what has waited elsewhere comes all at once."""


class Serving(Protocol):
    """Where clients go."""

    port: int
    tls_port: int


class Server:
    """`turnsvr run`, and whoever takes its place: entered, it serves; left, all of them have ended."""

    def __init__(
        self,
        directory: Path,
        tls: TlsFiles | None = None,
        *,
        more: str = "",
        peers: str = "{allow: [127.0.0.1, '::1']}",
        dtls: bool = False,
        environ: dict[str, str] | None = None,
        is_followed: bool = True,
    ) -> None:
        """is_followed: whether a service manager listens."""
        self._is_followed = is_followed
        self.port = free_port()
        self.tls_port = free_port()
        transports = [("udp", self.port), ("tcp", self.port)]
        text = f"""
realm: example.org
peers: {peers}
credentials: {{users: {{{USER}: {PASSWORD}}}, secrets: [{SECRET}]}}
{more}
"""
        if tls is not None:
            transports += [("tls", self.tls_port), *([("dtls", self.tls_port)] if dtls else [])]
            text += f"tls: {{certificate: {tls.certificate}, key: {tls.key}}}\n"
        hosts = ("127.0.0.1", "[::1]")
        listen = [f"'{transport}://{host}:{port}'" for transport, port in transports for host in hosts]
        text += f"listen: [{', '.join(listen)}]\n"
        if "relay:" not in more:
            text += "relay: {addresses: [127.0.0.1, '::1']}\n"
        self._directory = directory
        self.process = ServerProcess(text, directory, environ=environ)
        self.pids: list[int] = []
        self._takers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        if self._is_followed:
            self.process.__enter__()
        else:
            self.process.wait_logged(" serving ")
        self.pids.append(self.process.process.pid)
        return self

    def __exit__(self, *exception: object) -> None:
        alive = {*self.pids, *self._successors()}
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
        self.process.__exit__(None, None, None)
        try:
            for each in self._takers:
                each.wait(PATIENCE)
            wait_for(alive, "Z", PATIENCE)
        except (AssertionError, subprocess.TimeoutExpired):
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise

    @property
    def admin(self) -> AdminClient:
        return AdminClient.on_socket(self._directory / "admin.sock")

    @property
    def log(self) -> str:
        return self.process.log

    def rewrite(self, old: str, new: str) -> None:
        """Change the settings file."""
        text = self.process.file.read_text()
        assert old in text
        self.process.file.write_text(text.replace(old, new))

    def command(self, *arguments: str) -> str:
        """What a command says that succeeds."""
        done = self._run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        socket_path = str(self._directory / "admin.sock")
        return subprocess.run(
            [sys.executable, "-m", "turnsvr", name, "--socket", socket_path, *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def upgrade(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`turnsvr upgrade`."""
        done = self._run("upgrade", *arguments)
        if done.returncode == 0:
            self.pids.append(self.admin.status()["pid"])
        return done

    def take_over(self, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """`turnsvr run --take-over`, of which nobody waits."""
        with (self._directory / "stderr").open("ab") as errors:
            successor = subprocess.Popen(
                [
                    *(sys.executable, "-m", "turnsvr", "run", "-c", str(self.process.file)),
                    *("--take-over", str(self._directory / "admin.sock")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "RUNTIME_DIRECTORY": str(self._directory), **(environ or {})},
            )
        self.pids.append(successor.pid)
        self._takers.append(successor)
        return successor

    def _successors(self) -> list[int]:
        return [pid for parent in self.pids for pid in children(parent)]

    def gone(self, count: int) -> None:
        """Wait until the first so many processes have ended."""
        wait_for(self.pids[:count], "Z")

    def serves(self) -> int:
        """Who answers on the admin socket."""
        return int(self.admin.status()["pid"])


def is_alive(pid: int) -> bool:
    return state(pid) not in ("", "Z")


class Flow:
    """A client and a peer that send each other numbered packets at a steady rate, and count what arrives."""

    def __init__(self, client: TurnClient, peer: socket.socket, rate: float) -> None:
        self.client = client
        self.sent = 0
        self.up: Counter[int] = Counter()
        """Packets that have come to the peer, by number; down: to the client."""
        self.down: Counter[int] = Counter()
        self.late: list[float] = []
        """Seconds between arrivals, either way, the longest among them."""
        self._peer = peer
        self._interval = 1 / rate
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @classmethod
    async def open(cls, server: Serving, transport: str, rate: float = 200.0, *, family: Family = Family.IPV4) -> Flow:
        client = await cls.client_of(server, transport, family=family)
        peer = socket.socket(family.socket_family, socket.SOCK_DGRAM)
        peer.setblocking(False)
        peer.bind((LOOPBACK[family], 0))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        await client.bind_channel(Address(*peer.getsockname()[:2]))
        return cls(client, peer, rate)

    @staticmethod
    async def client_of(
        server: Serving, transport: str, wish: AllocateOptions | None = None, *, family: Family = Family.IPV4
    ) -> TurnClient:
        """A client with an allocation of the family by which it comes."""
        port = server.port if transport in ("udp", "tcp") else server.tls_port
        address = Address(LOOPBACK[family], port)
        link = await open_link(Transport(transport), address, tls=tls_context(insecure=True))
        if transport == "udp":
            link._socket.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        client = TurnClient(link, Login(USER, PASSWORD))
        try:
            await client.allocate(AllocateOptions(family=family) if wish is None else wish)
        except BaseException:
            await client.close()
            raise
        return client

    def start(self) -> None:
        self._tasks = [asyncio.create_task(each()) for each in (self._send, self._receive_up, self._receive_down)]

    async def stop(self) -> None:
        """Send no more, and let what is on its way arrive."""
        self._stopping = True
        await self._tasks[0]
        deadline = time.monotonic() + _SILENCE
        arrived = 0
        while min(len(self.up), len(self.down)) < self.sent and time.monotonic() < deadline:
            if arrived != len(self.up) + len(self.down):
                arrived, deadline = len(self.up) + len(self.down), time.monotonic() + _SILENCE
            await asyncio.sleep(0.05)
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        self._peer.close()
        await self.client.close()

    @property
    def lost(self) -> int:
        return 2 * self.sent - len(self.up) - len(self.down)

    @property
    def doubled(self) -> int:
        return sum(count > 1 for count in (*self.up.values(), *self.down.values()))

    async def _send(self) -> None:
        relayed = self.client.relayed[0]
        target = Address(*self._peer.getsockname()[:2])
        due = time.monotonic()
        while not self._stopping:
            data = self.sent.to_bytes(4, "big")
            self.client.send(target, data)
            self._peer.sendto(data, relayed)
            self.sent += 1
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _receive_up(self) -> None:
        loop = asyncio.get_running_loop()
        before = time.monotonic()
        while True:
            data, _ = await loop.sock_recvfrom(self._peer, 2048)
            self.up[int.from_bytes(data, "big")] += 1
            now = time.monotonic()
            self.late.append(now - before)
            before = now

    async def _receive_down(self) -> None:
        before = time.monotonic()
        while True:
            received = await self.client.receive()
            assert isinstance(received, PeerData), received
            self.down[int.from_bytes(received.data, "big")] += 1
            now = time.monotonic()
            self.late.append(now - before)
            before = now
