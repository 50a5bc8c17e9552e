"""python -m tests.marathon --minutes 60: a crowd on one server; exit status 1, with reasons, when something was wrong.

Thousands of sessions come and go over UDP, TCP, TLS and DTLS while strangers flood, the settings are reloaded, HTTP is
asked and other servers are drained. In the end the server must hold what it held before, every session and packet must
be accounted for, and no client may have seen what was not meant for it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any
from urllib.request import urlopen

from tests.conftest import free_port
from tests.marathon import crowd, place
from tests.marathon.crowd import LIFETIME, Seen, World, live
from tests.marathon.peers import Peer
from tests.marathon.server import SETTINGS, Server, ServerGone, Use
from turnsvr import relay
from turnsvr.app import firstrun
from turnsvr.client.credentials import Login
from turnsvr.client.dtls import DtlsContext
from turnsvr.client.link import tls_context
from turnsvr.stun.address import Address, Transport

_HAS_DTLS = relay.describe().startswith("compiled")
_SERVER, _FORBIDDEN, _INTRUDER, _PEERS = 1, 2, 3, (4, 5, 6)
"""The last numbers of hosts."""
_USERS = 40
_SAMPLE = 10.0
_RELOAD = 20.0
_DRAIN = 120.0
"""Seconds between looks at the server, reloads, and servers that are drained."""
_DRAINED_CLIENTS = 20
_MOST_GROWTH = 8 << 20
"""Bytes that the process may grow from the second third of the run to its last sixth: allocators breathe."""
_GRACE = 30.0
"""Seconds beyond the longest life and lifetime until all is gone."""


class Marathon:
    """One run."""

    def __init__(self, directory: Path, prefix: str, minutes: float, clients: int, seed: int) -> None:
        """prefix: the first three numbers of the hosts to use."""
        self.seen = Seen()
        self.uses: list[Use] = []
        self.problems: list[str] = []
        self._directory = directory
        self._seconds = minutes * 60
        self._clients = clients
        self._random = random.Random(seed)
        self._logins = [Login(f"user{number}", secrets.token_hex(8)) for number in range(_USERS)]
        self._prefix = prefix
        self._host = self._at(_SERVER)
        files = firstrun.write_self_signed(directory, [self._host])
        self._ports = _free_ports()
        self._values: dict[str, object] = {
            "certificate": files.certificate,
            "key": files.key,
            "users": ", ".join(f"{login.username}: {login.password}" for login in self._logins),
            "peers": ", ".join(map(self._at, (*_PEERS, _FORBIDDEN, _INTRUDER))),
            "secret": secrets.token_hex(32),
            "relay": self._host,
            "host": self._host,
        }
        self._stopping = False
        self._servers: list[Server] = []

    def _at(self, number: int) -> str:
        return f"{self._prefix}.{number}"

    def _settings(self, directory: Path, ports: dict[str, int], allocations: int = 20_000) -> str:
        dtls = f', "dtls://{self._host}:{ports["tls_port"]}"' if _HAS_DTLS else ""
        values = self._values | ports | {"dtls": dtls, "socket": directory / "admin.sock", "allocations": allocations}
        return SETTINGS.format_map(values)

    def _start(self, name: str, ports: dict[str, int]) -> Server:
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        server = Server(directory, self._settings(directory, ports))
        self._servers.append(server)
        return server

    def _world(self, ports: dict[str, int], peers: Sequence[Peer]) -> World:
        servers = {
            Transport.UDP: Address(self._host, ports["port"]),
            Transport.TCP: Address(self._host, ports["port"]),
            Transport.TLS: Address(self._host, ports["tls_port"]),
        }
        if _HAS_DTLS:
            servers[Transport.DTLS] = servers[Transport.TLS]
        return World(
            servers,
            tls_context(insecure=True),
            DtlsContext(insecure=True),
            self._logins,
            peers,
            self._forbidden,
            self._intruder,
            self.seen,
            self._random,
        )

    async def run(self) -> None:
        self._peers = [Peer(self._at(number)) for number in _PEERS]
        self._forbidden = Peer(self._at(_FORBIDDEN), answers=False)
        self._intruder = Peer(self._at(_INTRUDER), answers=False)
        self._server = self._start("main", self._ports)
        try:
            await self._run()
        except ServerGone as gone:
            self.problems.append(str(gone))
        finally:
            for server in self._servers:
                server.close()

    async def _run(self) -> None:
        self._server.status()
        world = self._world(self._ports, self._peers)
        await _once(world)  # what is loaded late is loaded now
        before = self._server.use()
        print(f"at rest: {before}", flush=True)
        strangers = [
            asyncio.create_task(each)
            for each in (
                crowd.flood(world),
                crowd.flood_datagrams(world),
                *(crowd.trouble(world) for _ in range(8)),
                crowd.made_up_names(world),
                crowd.binding(world),
                self._every(_SAMPLE, self._sample),
                self._every(_RELOAD, self._reload),
                self._every(_DRAIN, self._drain_another),
                self._ask_http(),
            )
        ]
        self._began = time.monotonic()
        crowd_ = [asyncio.create_task(self._live_on(world, number)) for number in range(self._clients)]
        done, _ = await asyncio.wait(strangers, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        self.problems += [f"a stranger ended: {task.exception()!r}" for task in done]
        self._stopping = True
        for task in strangers:
            task.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)
        await asyncio.gather(*crowd_)
        await self._settle()
        self._judge(before)
        self._server.drain()
        try:
            if status := await asyncio.to_thread(self._server.wait, 10):
                self.problems.append(f"the drained server ended with status {status}")
        except TimeoutExpired:
            self.problems.append("the drained server did not end, though it had no session")

    async def _live_on(self, world: World, number: int) -> None:
        await asyncio.sleep(number * 10 / self._clients)
        while not self._stopping:
            await live(world)

    async def _every(self, seconds: float, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await what()

    async def _sample(self) -> None:
        use = self._server.use()
        self.uses.append(use)
        now = (await asyncio.to_thread(self._server.status))["sessions"]["now"]
        lived = sum(self.seen.lived.values())
        print(f"{time.monotonic() - self._began:6.0f} s: {now} sessions, {lived} ended well, {use}", flush=True)

    async def _reload(self) -> None:
        allocations = self._random.randrange(15_000, 25_000)
        await asyncio.to_thread(self._server.reload, self._settings(self._directory / "main", self._ports, allocations))

    async def _drain_another(self) -> None:
        """A server with sessions is drained: it takes no more, and ends with the last one, well."""
        peers = [Peer(self._at(number)) for number in _PEERS]
        ports = _free_ports()
        side = self._start("side", ports)
        try:
            await asyncio.to_thread(side.status)
            world = self._world(ports, peers)
            lives = [asyncio.create_task(live(world)) for _ in range(_DRAINED_CLIENTS)]
            await asyncio.sleep(5)
            side.drain()
            await asyncio.gather(*lives)
            status = await asyncio.to_thread(side.wait, LIFETIME + _GRACE)
            if status or _trouble_in(side.log):
                self.problems.append(f"the drained server ended with status {status}:\n{side.log[-2000:]}")
        except TimeoutExpired:
            self.problems.append("a drained server did not end with its last session")
        finally:
            side.close()
            self._servers.remove(side)
            for peer in peers:
                peer.close()

    async def _ask_http(self) -> None:
        base = f"http://{self._host}:{self._ports['web_port']}"
        idle: list[asyncio.StreamWriter] = []
        try:
            while True:
                for path in ("/healthz", "/metrics", "/ice-servers"):
                    try:
                        await asyncio.to_thread(_get, base + path)
                    except OSError as error:
                        self.seen.errors[f"HTTP {path}: {error}"] += 1
                with suppress(OSError):
                    idle.append((await asyncio.open_connection(self._host, self._ports["web_port"]))[1])
                while len(idle) > 50:
                    idle.pop(0).transport.abort()
                await asyncio.sleep(1)
        finally:
            for writer in idle:
                writer.transport.abort()

    async def _settle(self) -> None:
        """Until what clients left behind is past its deadline."""
        deadline = time.monotonic() + LIFETIME + _GRACE
        while time.monotonic() < deadline:
            status = await asyncio.to_thread(self._server.status)
            if not status["sessions"]["now"] and not status["connections"]:
                break
            await asyncio.sleep(1)
        await asyncio.sleep(5)

    def _judge(self, before: Use) -> None:
        status, after = self._server.status(), self._server.use()
        print(f"at rest: {after}")
        sessions = status["sessions"]
        started, ended = sum(sessions["started"].values()), sum(sessions["ended"].values())
        arrived = sum(peer.received + peer.lost for peer in self._peers)
        relayed = status["relayed"]["from_client"]["packets"]
        print(f"sessions: {sessions}\npackets: {self.seen.sent} sent, {relayed} relayed, {arrived} arrived at peers,")
        print(f"  {self.seen.answered} came back; drops {status['drops']}")
        print(f"lives: {dict(sorted(self.seen.lived.items()))}\nerrors: {dict(sorted(self.seen.errors.items()))}")
        growth = self._growth()
        print(f"growth from the second third to the last sixth: {growth / 1e6:+.1f} MB")
        expectations = {
            "sessions are left": sessions["now"] == 0,
            "connections are left": status["connections"] == 0,
            f"{started} sessions were started, {ended} ended": started == ended,
            f"the server says {relayed} packets for peers, {arrived} arrived": relayed == arrived,
            f"{self._forbidden.received} packets reached a peer without a permission": not self._forbidden.received,
            "no packet was refused, though some had no permission": status["drops"]["no_permission"] > 0,
            f"descriptors: {before.descriptors} before, {after.descriptors} after": (
                after.descriptors <= before.descriptors
            ),
            f"threads: {before.threads} before, {after.threads} after": after.threads <= before.threads + 1,
            f"memory grew by {growth} bytes": growth <= _MOST_GROWTH,
            f"the log tells of trouble:\n{self._server.log[:4000]}": not _trouble_in(self._server.log),
            f"only {self.seen.answered} of {self.seen.sent} packets came back": (
                self.seen.answered > 0.9 * self.seen.sent
            ),
        }
        self.problems += [text for text, holds in expectations.items() if not holds]
        self.problems += self.seen.faults

    def _growth(self) -> int:
        """Bytes between the medians of two parts of the run."""
        memory = [use.memory for use in self.uses]
        third, sixth = len(memory) // 3, max(len(memory) // 6, 1)
        if not third:
            return 0
        return int(statistics.median(memory[-sixth:]) - statistics.median(memory[third : 2 * third]))


def _free_ports() -> dict[str, int]:
    return {name: free_port() for name in ("port", "tls_port", "web_port")}


async def _once(world: World) -> None:
    """A short life on each leg."""
    for transport in world.servers:
        await crowd.session(world, await world.connect(transport), seconds=1)


def _get(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _trouble_in(log: str) -> bool:
    return any(word in log for word in ("Traceback", "could not be", "exception"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.marathon", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=1000, help="alive at once")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    prefix, where = place.enter()
    print(f"seed {arguments.seed}, in {where}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        marathon = Marathon(Path(directory), prefix, arguments.minutes, arguments.clients, arguments.seed)
        asyncio.run(marathon.run())
    for problem in marathon.problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if marathon.problems else 0)


if __name__ == "__main__":
    main()
