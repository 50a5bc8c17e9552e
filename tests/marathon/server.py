"""The server process of the marathon, and what it takes of the machine."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnsvr.admin import NoServer, RefusedByServer
from turnsvr.admin.client import AdminClient

_PATIENCE = 60.0
"""Seconds to become ready, and to answer on a machine that is busy with other things."""

SETTINGS = """\
realm: example.org
listen: ["udp://{host}:{port}", "tcp://{host}:{port}", "tls://{host}:{tls_port}"{dtls}]
tls: {{certificate: {certificate}, key: {key}}}
relay: {{addresses: [{relay}]}}
peers: {{allow: [{peers}]}}
credentials: {{secret: {secret}, users: {{{users}}}}}
limits: {{lifetime: 60s, allocations_per_user: 100000, allocations: {allocations}, connections: 8000,
  connections_per_address: 8000, answers_per_address: 0, idle_timeout: 8s}}
web: {{listen: "http://{host}:{web_port}", public: true}}
admin: {{socket: {socket}}}
log: {{level: warning}}
"""


@dataclass(frozen=True)
class Use:
    """What a process holds."""

    memory: int
    """Bytes of its own and its part of what is shared (PSS)."""
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory / 1e6:.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


class ServerGone(Exception):
    """It has ended, or does not answer any more."""


class Server:
    """`turnsvr run` on a file, seen from outside."""

    def __init__(self, directory: Path, settings: str) -> None:
        self.file = directory / "turnsvr.yaml"
        self.file.write_text(settings)
        self.socket = directory / "admin.sock"
        self._errors = (directory / "log").open("wb")
        self._log = directory / "log"
        command = [sys.executable, "-m", "turnsvr", "run", "-c", str(self.file)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors)

    def status(self) -> dict[str, Any]:
        """What it says of itself, once it answers; raises ServerGone."""
        deadline = time.monotonic() + _PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(NoServer, RefusedByServer, OSError, http.client.HTTPException):
                return AdminClient.on_socket(self.socket).status()
            time.sleep(0.1)
        raise ServerGone(f"the server does not answer, status {self.process.returncode}:\n{self.log[-4000:]}")

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def use(self) -> Use:
        proc = Path(f"/proc/{self.process.pid}")
        rollup = dict(line.split(":", 1) for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
        return Use(int(rollup["Pss"].split()[0]) * 1024, len(os.listdir(proc / "fd")), len(os.listdir(proc / "task")))

    def reload(self, settings: str) -> None:
        self.file.write_text(settings)
        self.process.send_signal(signal.SIGHUP)

    def drain(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    def wait(self, patience: float) -> int:
        """Exit status. Raises TimeoutExpired."""
        return self.process.wait(patience)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._errors.close()
