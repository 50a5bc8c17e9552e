"""What `survive: crash` costs: `python -m bench.journal` has sessions come and go on a server with it and one without.

Each session allocates, binds a channel, lives for a while, and is given back. What counts is the CPU time of the server
for each, with a service manager that keeps what it is given, as systemd does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.process import cpu_seconds
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.turn import TurnClient
from turnsvr.stun.address import Address

_SERVER = Address("127.0.0.1", 31_479)
_PEER = Address("127.0.0.1", 9)
_USER, _PASSWORD = "bench", secrets.token_hex(8)
_AT_ONCE = 50


class _Manager:
    """Keeps descriptors, and does nothing else."""

    def __init__(self) -> None:
        self.name = f"turnsvr-bench-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.name}")
        self._kept: list[int] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 16)
            if b"FDSTORE=1" in data:
                self._kept += descriptors
                descriptors = []
            for each in descriptors:
                os.close(each)
            if b"FDSTOREREMOVE=1" in data:
                for each in self._kept:
                    os.close(each)
                self._kept.clear()


@contextlib.contextmanager
def _serving(survive: str, directory: Path, manager: _Manager) -> Iterator[int]:
    file, log = directory / f"{survive}.yaml", directory / "log"
    file.write_text(
        f"realm: bench\nlisten: udp://{_SERVER}\nrelay: {{addresses: [{_SERVER.host}]}}\nadmin: {{socket: off}}\n"
        f"peers: {{allow: [{_PEER.host}]}}\ncredentials: {{users: {{{_USER}: {_PASSWORD}}}}}\nsurvive: {survive}\n"
        "limits: {allocations_per_user: 1000, allocation_rate_per_user: 0, answers_per_address: 0}\n"
        "pump: {threads: 1}\n"
    )
    with log.open("wb") as errors:
        server = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "turnsvr", "run", "-c", str(file)],
            stderr=errors,
            env={**os.environ, "NOTIFY_SOCKET": f"@{manager.name}"},
        )
    try:
        while b" serving " not in log.read_bytes():
            time.sleep(0.05)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


async def _one(lives: float) -> None:
    client = TurnClient(await DatagramLink.open(_SERVER), Login(_USER, _PASSWORD))
    await client.allocate()
    await client.bind_channel(_PEER)
    await asyncio.sleep(lives)
    await client.close()


async def _many(count: int, lives: float) -> None:
    for _ in range(0, count, _AT_ONCE):
        await asyncio.gather(*(_one(lives) for _ in range(_AT_ONCE)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=1000, help="of each run")
    parser.add_argument("--lives", type=float, default=0.3, help="seconds that a session lives")
    arguments = parser.parse_args()
    manager, took = _Manager(), dict[str, list[float]](restart=[], crash=[])
    with tempfile.TemporaryDirectory() as directory:
        for survive in [*took] * arguments.pairs:
            with _serving(survive, Path(directory), manager) as pid:
                asyncio.run(_many(_AT_ONCE, arguments.lives))
                before = cpu_seconds(pid)
                asyncio.run(_many(arguments.sessions, arguments.lives))
                took[survive].append((cpu_seconds(pid) - before) / arguments.sessions * 1e6)
    for survive, each in took.items():
        print(f"survive: {survive:8} {statistics.median(each):4.0f} us a session, at best {min(each):4.0f}")


if __name__ == "__main__":
    main()
